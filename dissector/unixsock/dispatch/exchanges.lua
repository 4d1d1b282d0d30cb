-- Matches answers to questions: by a key that both carry, else in the order in which they were asked.
--
-- All is found in the first pass and remembered by the message's place in the capture, so that a second pass and a
-- click in the packet list show the same.  Of a file the first MOST questions are remembered; of later ones nothing is
-- shown.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local record = host.load("record/parse")
local attributes = host.load("util/attributes")
local printable = host.load("util/text").printable

local M = {}

local MOST = 131072
local MAX_METHOD = 128 -- bytes of a method's name

local F = {
    request_in = ProtoField.framenum("unixsock.request_in", "Request in", base.NONE, frametype.REQUEST),
    response_in = ProtoField.framenum("unixsock.response_in", "Response in", base.NONE, frametype.RESPONSE),
    time = ProtoField.relative_time("unixsock.response_time", "Response time"),
}
local E = {
    failure = ProtoExpert.new("unixsock.expert.error_answer", "Answer is an error", expert.group.RESPONSE_CODE,
        expert.severity.WARN),
    unanswered = ProtoExpert.new("unixsock.expert.no_answer", "Question without an answer in this capture",
        expert.group.SEQUENCE, expert.severity.WARN),
}
-- For dispatch/followers.lua.
M.hpack = ProtoExpert.new("unixsock.expert.hpack", "Header fields refer to what was sent before the capture",
    expert.group.UNDECODED, expert.severity.NOTE)
M.fields, M.experts = { F.request_in, F.response_in, F.time }, { E.failure, E.unanswered, M.hpack }

---------------------------------------------------------------------------------------------------
-- What is remembered

-- A message's place is one number: its frame, its number in the frame, and which part of it.
local FRAME, MESSAGE = 2 ^ 22, 2 ^ 8

-- By a question's number: its place, its time, the place of its first answer (0: unknown whether there is one), and
-- what is asked.  By an answer's number: its place, and its question's number.
local asked_at, asked_time, answer_of, what, answered_at, question_of, over
local answer_time, failed_at -- by a question's number; the latter is the place of a later answer that is an error
local failure_at, failure_count -- by their place, errors that followers (dispatch/followers.lua) have found

local whats, what_count -- texts of `what`, and how many: made-up ones are not kept without end
local MOST_WHATS = 4096

function M.reset()
    asked_at, asked_time, answer_of, what, answered_at, question_of = {}, {}, {}, {}, {}, {}
    answer_time, failed_at, over, whats, what_count = {}, {}, 0, {}, 0
    failure_at, failure_count = {}, 0
end

M.reset()

-- What happened in the current record, for statistics: { what = { protocol, method }, time = seconds or nil, failed };
-- with `late`, a later answer to the same question is an error.
-- Only kept if `listening` is true.
M.events, M.listening = {}, false

local place, part

-- Called before each record's payload is dissected.
function M.start_record()
    place, part = 0, 0
    if M.listening then M.events = {} end
end

-- Called before each message of the record.
function M.next_message()
    place, part = place + 1, 0
end

local get_visited, get_time = attributes.getter("Pinfo", "visited"), attributes.getter("Pinfo", "rel_ts")

local function this_place()
    part = math.min(part + 1, MESSAGE - 1)
    return host.current.number * FRAME + place * MESSAGE + part
end

-- The number of `wanted` in the ascending `list`, or nil.
local function find(list, wanted)
    local low, high = 1, #list
    while low < high do
        local middle = math.floor((low + high) / 2)
        if list[middle] < wanted then low = middle + 1 else high = middle end
    end
    return list[low] == wanted and low or nil
end

local function text_of(protocol, method)
    method = (method or ""):sub(1, MAX_METHOD)
    local key = protocol .. "\0" .. method
    local known = whats[key]
    if known then return known end
    method = printable(method)
    if what_count >= MOST_WHATS then key, method = protocol .. "\0(other)", "(other)" end
    known = whats[key] or { protocol, method }
    if not whats[key] then what_count = what_count + 1 end
    whats[key] = known
    return known
end

-- The questions of a socket that wait for answers: first and last number of those that are answered in order, and by
-- their number or key the question's.
local function questions_of(sock, make)
    local conversation = host.current.way.conversation
    local all = conversation.questions
    if not all then
        if not make then return nil end
        all = {}
        conversation.questions = all
    end
    local waiting = all[sock]
    if not waiting and make then
        waiting = { first = 1, last = 0, by_key = {} }
        all[sock] = waiting
    end
    return waiting
end

local function event(about, time, failed, late)
    if M.listening then M.events[#M.events + 1] = { what = about, time = time, failed = failed, late = late } end
end

-- Counts the answer at the place `at` to the question `number`.
local function count_answer(number, at, time, failure)
    if answer_of[number] == at then
        event(what[number], time - asked_time[number], failure ~= nil)
    elseif failed_at[number] == at then
        event(what[number], nil, nil, true)
    end
end

---------------------------------------------------------------------------------------------------
-- What is shown

local referenced, add = TreeItem.referenced, TreeItem.add

local function seconds(time)
    local whole = math.floor(time)
    return NSTime.new(whole, math.floor((time - whole) * 1e9 + 0.5))
end

local function frame_of(at) return math.floor(at / FRAME) end

local function show(tree, field, value)
    if referenced(tree, field) then add(tree, field, value):set_generated() end
end

local function show_question(number, tree)
    local answer = answer_of[number]
    if answer and answer > 0 then
        show(tree, F.response_in, frame_of(answer))
        if referenced(tree, F.time) then
            show(tree, F.time, seconds(math.max(answer_time[number] - asked_time[number], 0)))
        end
    elseif not answer then
        tree:add_proto_expert_info(E.unanswered)
    end
end

local function show_answer(number, tree, failure, time)
    if number then
        show(tree, F.request_in, frame_of(asked_at[number]))
        if referenced(tree, F.time) then show(tree, F.time, seconds(math.max(time - asked_time[number], 0))) end
    end
    if failure then tree:add_proto_expert_info(E.failure, "Answer is an error: " .. printable(failure)) end
end

---------------------------------------------------------------------------------------------------
-- For protocols

-- A message that asks for `method`; `key` is what the answer will carry, nil if answers come in the order of
-- questions.  `tree`: where it is shown.  `perhaps`: it is not known whether an answer is wanted.
function M.question(protocol, method, key, tree, pinfo, perhaps)
    local at = this_place()
    if get_visited(pinfo) then
        local number = find(asked_at, at)
        if number then
            event(what[number], nil, nil)
            show_question(number, tree)
        end
        return
    end
    local waiting = questions_of(record.src_sock(host.current.way), true)
    local number = #asked_at + 1
    if number > MOST or #asked_at > 0 and asked_at[#asked_at] >= at then
        over, number = over + 1, nil
    else
        asked_at[number], asked_time[number], what[number] = at, get_time(pinfo), text_of(protocol, method)
        answer_of[number], answer_time[number] = perhaps and 0 or false, false
        event(what[number], nil, nil)
    end
    if key ~= nil then
        waiting.by_key[key] = number
    else
        waiting.last = waiting.last + 1
        waiting[waiting.last] = number
    end
end

-- Whether a question with this key waits for an answer of the current record's sender.
function M.waits(key)
    local waiting = questions_of(record.dst_sock(host.current.way), false)
    return waiting ~= nil and waiting.by_key[key] ~= nil
end

-- A message that reports a failure, and answers no request.
function M.failure(words, tree) show_answer(nil, tree, words) end

-- A message that answers a question with the same `key`, or if that is nil the one that has waited longest.  `failure`
-- is the error that it reports, or nil.  `more`: other answers to the same request follow.
function M.answer(key, failure, tree, pinfo, more)
    local at, time = this_place(), get_time(pinfo)
    if get_visited(pinfo) then
        local answer = find(answered_at, at)
        local number = answer and question_of[answer]
        if number then count_answer(number, at, time, failure) end
        show_answer(number, tree, failure, time)
        return
    end
    local waiting = questions_of(record.dst_sock(host.current.way), false)
    local number
    if not waiting then
        number = nil
    elseif key ~= nil then
        number = waiting.by_key[key]
        if not more then waiting.by_key[key] = nil end
    elseif waiting.first <= waiting.last then
        number = waiting[waiting.first]
        if not more then
            waiting[waiting.first] = nil
            waiting.first = waiting.first + 1
        end
    end
    if number and (#answered_at == 0 or answered_at[#answered_at] < at) then
        answered_at[#answered_at + 1], question_of[#question_of + 1] = at, number
        if not answer_of[number] or answer_of[number] == 0 then
            answer_of[number], answer_time[number] = at, time
            if failure then failed_at[number] = at end
        elseif failure and not failed_at[number] then
            failed_at[number] = at
        end
        count_answer(number, at, time, failure)
    elseif number then -- it has no place
        answer_of[number] = answer_of[number] or 0
    end
    show_answer(number, tree, failure, time)
end

-- The message asks or answers in order, and nothing is shown of it: `count` of them are passed over.
function M.pass_over(count, is_question, pinfo)
    if get_visited(pinfo) then return end
    local way = host.current.way
    local waiting = questions_of(is_question and record.src_sock(way) or record.dst_sock(way), is_question)
    if is_question then
        waiting.last = waiting.last + count
    elseif waiting then
        for number = waiting.first, math.min(waiting.first + count, waiting.last + 1) - 1 do
            if waiting[number] then answer_of[waiting[number]] = 0 end
            waiting[number] = nil
        end
        waiting.first = math.min(waiting.first + count, waiting.last + 1)
    end
end

-- Something of the conversation is missing in the capture: what was asked before may have been answered there.
function M.lost(pinfo)
    local conversation = host.current.way.conversation
    if get_visited(pinfo) then return end
    conversation.asking = nil -- what a protocol remembers of a question that is not complete
    if conversation.followed then conversation.followed.lost = true end
    if not conversation.questions then return end
    for _, waiting in pairs(conversation.questions) do
        for number = waiting.first, waiting.last do
            if waiting[number] then answer_of[waiting[number]] = answer_of[waiting[number]] or 0 end
        end
        for _, number in pairs(waiting.by_key) do answer_of[number] = answer_of[number] or 0 end
    end
    conversation.questions = nil
end

-- The same as answer() in the first pass, for what reads a message in that pass only: remembers the error, too.
function M.answer_once(key, failure, tree, pinfo, more)
    local before = part
    local at = host.current.number * FRAME + place * MESSAGE + math.min(part + 1, MESSAGE - 1)
    if failure and failure_count < MOST then
        failure = failure:sub(1, MAX_METHOD)
        failure_at[at] = failure
        failure_count = failure_count + 1
    end
    M.answer(key, failure, tree, pinfo, more)
    if answered_at[#answered_at] ~= at and not failure_at[at] then part = before end -- again() has nothing to find
end

-- No more answers come to the question with this key.
function M.done(key, pinfo)
    local waiting = not get_visited(pinfo) and questions_of(record.dst_sock(host.current.way), false)
    if waiting then waiting.by_key[key] = nil end
end

-- In a later pass: shows what question() and answer_once() found in the record.
function M.again(tree, pinfo)
    local time = get_time(pinfo)
    while part < MESSAGE - 1 do
        local at = host.current.number * FRAME + place * MESSAGE + part + 1
        local question, answer = find(asked_at, at), find(answered_at, at)
        if question then
            event(what[question], nil, nil)
            show_question(question, tree)
        elseif answer or failure_at[at] then
            local number, failure = answer and question_of[answer], failure_at[at]
            if number then count_answer(number, at, time, failure) end
            show_answer(number, tree, failure, time)
        else
            return
        end
        part = part + 1
    end
end

-- How many questions there were that are not remembered.
function M.not_remembered() return over end

M.start_record()

return M
