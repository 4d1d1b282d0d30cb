-- Messages that come in many pieces.  Where a message does not tell its length, all that can be done is to ask
-- Wireshark's TCP dissector for one more segment, and at each it copies all that has come before.  That is limited
-- here: from then on a long message of one of our own protocols is collected in Lua, and a dissector of Wireshark's
-- has to show what there is.
--
-- Which frames are parts of which message is found in the first pass and remembered, so that a second pass and a
-- click in the packet list show the same.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local record = host.load("record/parse")

local M = {}

-- Bytes that Wireshark may copy for one message: so many, and so many times what there is of it.
local COPIES, TIMES = 4194304, 16
-- For Wireshark's dissectors more, as nothing collects for them: HTTP's chunks add up to half a megabyte.
local COPIES_OF_OTHERS = 20971520
local MAX_LONG = 16777216 -- a longer message is counted, but not shown
local MAX_KEPT = 16777216 -- bytes of long messages that are kept to be shown again

local kept, first_kept, kept_bytes -- long messages that still have their bytes, in the order of their completion

function M.reset()
    kept, first_kept, kept_bytes = {}, 1, 0
end

M.reset()

---------------------------------------------------------------------------------------------------
-- The direction of a record

local first_call -- the record's bytes have not been looked at yet

-- Called before a record's payload is dissected.  `part`: whether it turned out to be a part of a message.
function M.start_record()
    first_call, M.part = true, false
end

-- The table of the current record's direction; nil if there is none and none is to be made.
local function direction(make)
    local way = host.current.way
    local all = way.conversation.directions
    local sock = record.src_sock(way)
    local found = all and all[sock]
    if not found and make then
        all, found = all or {}, {}
        way.conversation.directions, all[sock] = all, found
    end
    return found
end

-- The frame in which the first message of the direction was shown, or nil.  `now`: it is the current record's, unless
-- there was one before.
function M.first_message(now)
    local dir = direction(now)
    if now and not dir.first then dir.first = host.current.number end
    return dir and dir.first
end

-- Where the current record's bytes begin and end in their direction.
local function positions()
    local rec = host.current
    local start = rec.seq_lo + rec.seq_hi * 4294967296.0 + rec.offset
    return start, start + rec.caplen
end

---------------------------------------------------------------------------------------------------
-- Long messages: { first and last frame, stop: bytes of the last frame that belong to it, size, bytes }

-- Of the messages in `list`, the last that has begun by frame `number`; or nil.
local function latest(list, number)
    local low, high = 1, #list
    while low < high do
        local middle = math.ceil((low + high) / 2)
        if list[middle].first <= number then low = middle else high = middle - 1 end
    end
    local message = list[low]
    return message and message.first <= number and message or nil
end

local function keep(message, bytes)
    if message.bytes or #bytes > MAX_KEPT then return end
    message.bytes, kept_bytes = bytes, kept_bytes + #bytes
    kept[#kept + 1] = message
    while kept_bytes > MAX_KEPT do
        local old = kept[first_kept]
        kept_bytes, kept[first_kept], first_kept = kept_bytes - #old.bytes, false, first_kept + 1
        old.bytes = nil
    end
end

-- Adds the record's bytes to what is collected.
local function collect(open, bytes, stop)
    open.size, open.next = open.size + #bytes, stop
    if open.size > MAX_LONG then
        open.parts = nil
    elseif open.parts then
        open.parts[#open.parts + 1] = bytes
    end
end

local function begin_collecting(message, bytes)
    local _, stop = positions()
    return { message = message, parts = { bytes }, size = #bytes, next = stop }
end

-- In a frame that was seen before: as continue().
local function show_again(dir, text, number)
    local message = latest(dir.long, number - 1)
    if not message or message.last and number > message.last then return nil end
    local start, stop = positions()
    local again = dir.again
    if again and (again.message ~= message or again.next ~= start) then again, dir.again = nil, nil end
    if number ~= message.last or not message.stop then
        if again then collect(again, text, stop) end
        return #text
    end
    if again then
        collect(again, text:sub(1, message.stop), stop)
        if again.parts then keep(message, table.concat(again.parts)) end
        dir.again = nil
    end
    return message.stop, message.size, message.bytes
end

-- Looks in the next piece for the end of the message that is collected.  Gives where it ends in `text`; nil if it
-- does not; false if this is no message.
local function look(open, rules, text)
    local ahead = open.ahead -- bytes of this and later pieces that need no look, or lead to the known end
    if ahead >= #text and not (open.ends and ahead == #text) then
        open.ahead = ahead - #text
        return nil
    elseif open.ends then
        return ahead
    end
    local window = open.rest .. text
    local last = #window
    local stop, looked = rules.scan(window, ahead, last, open.state)
    if stop and stop <= last then return math.max(stop - #open.rest, 0) end
    if stop == false then return false end
    if stop then open.ends, looked = true, stop end
    open.rest, open.ahead = window:sub(looked + 1), math.max(looked - last, 0)
    return nil
end

-- Where a long message goes on in the record whose bytes are `text`: how many of them belong to it, and if it ends
-- there its size, and its bytes if they are still there.  Nil if none goes on.
function M.continue(rules, text, pinfo)
    local dir = direction()
    if not dir or not dir.long or not first_call then return nil end
    if pinfo.visited then return show_again(dir, text, pinfo.number) end
    local open = dir.open
    if not open then return nil end
    local start, stop = positions()
    local found = open.rules == rules and open.next == start and #text == stop - start and look(open, rules, text)
    local message = open.message
    if found == false then -- something is missing, or it was none
        dir.open, message.last = nil, open.seen
        return nil
    end
    open.seen = pinfo.number
    collect(open, found and text:sub(1, found) or text, stop)
    if not found then return #text end
    dir.open, message.last, message.stop, message.size = nil, pinfo.number, found, open.size
    local whole = open.parts and table.concat(open.parts)
    if whole then keep(message, whole) end
    return found, open.size, whole
end

---------------------------------------------------------------------------------------------------
-- Messages that wait for more segments

-- Where to go on with the message at `at` in a stream's bytes, of which there are `last`: the offset, and the
-- protocol's state.
function M.resume(rules, at, last, pinfo)
    local dir = not pinfo.visited and first_call and direction()
    local waiting = dir and dir.waiting
    first_call = false
    if waiting and waiting.rules == rules and at == 0 and last >= waiting.size then
        local _, stop = positions()
        if stop - last == waiting.start then return waiting.looked, waiting.state end
    end
    if dir then dir.waiting = nil end
    return at, {}
end

-- Whether to ask for one more segment for the message at `at`, in which has been looked up to `from`.  If not, what
-- comes is collected here.
function M.wait(rules, text, at, from, state, pinfo)
    local dir, number = direction(true), pinfo.number
    if pinfo.visited then
        local message = dir.long and latest(dir.long, number)
        if not message or message.first ~= number then return true end
        if not message.bytes then dir.again = begin_collecting(message, text:sub(at + 1)) end
        return false
    end
    local size = #text - at
    local _, stop = positions()
    local waiting = dir.waiting
    if not waiting or waiting.start ~= stop - size then
        waiting = { rules = rules, start = stop - size, copied = 0, state = state }
        dir.waiting = waiting
    end
    waiting.size, waiting.looked, waiting.copied = size, from - at, waiting.copied + size
    if waiting.copied <= COPIES + TIMES * size then return true end
    local message = { first = number }
    dir.long = dir.long or {}
    dir.long[#dir.long + 1] = message
    local open = begin_collecting(message, text:sub(at + 1))
    open.rules, open.state, open.seen = rules, state, number
    open.rest, open.ahead = text:sub(from + 1), math.max(from - #text, 0)
    dir.waiting, dir.open = nil, open
    return false
end

-- The record's bytes hold no message that waits.
function M.done(pinfo)
    local dir = not pinfo.visited and direction()
    if dir then dir.waiting = nil end
end

---------------------------------------------------------------------------------------------------
-- Wireshark's own dissectors

-- Whether one of them may go on to wait, given `length` bytes that it gets; called before it is.
function M.may_wait(length, pinfo)
    local dir = direction()
    if not dir then return true end
    if pinfo.visited then return not (dir.gave_up and dir.gave_up[pinfo.number]) end
    local other = first_call and dir.other
    first_call = false
    if not other or length < other.size then
        dir.other = nil
        return true
    end
    if other.copied + length <= COPIES_OF_OTHERS + TIMES * length then return true end
    dir.gave_up = dir.gave_up or {}
    dir.gave_up[pinfo.number], dir.other = true, nil
    return false
end

-- Where the bytes go to Wireshark's own dissector directly: called if they wait, and whether they should no longer
-- go there, since they have waited often.
local OFTEN = 32

function M.waits_directly()
    local dir = direction(true)
    dir.direct = (dir.direct or 0) + 1
end

function M.waits_often(rec)
    if not rec.way.conversation.directions then return false end
    local dir = direction()
    return dir ~= nil and (dir.direct or 0) >= OFTEN
end

-- Called after it, if it waits for more: of `length` bytes it took those before `offset`.
function M.waits(length, offset, pinfo)
    if pinfo.visited then return end
    local dir = direction(true)
    local copied = offset == 0 and dir.other and dir.other.copied or 0
    dir.other = { size = length - offset, copied = copied + length - offset }
end

return M
