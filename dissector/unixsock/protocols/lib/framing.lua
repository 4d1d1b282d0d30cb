-- Cuts a stream's bytes into messages for the protocols in this folder's parent, and shows each of them.
--
-- A protocol gives two functions.  scan(text, from, last, state) continues to look for the end of a message at offset
-- `from` (from 0) of `text`, which has `last` bytes.  It returns where the message ends, which may lie beyond `last`;
-- or nil and how far it has looked, where more bytes are needed (it is called again with what comes after that, so
-- nothing is looked at twice); or false if this is no message.  `state` is a table for its own use, empty at a
-- message's beginning, where also `from` is.  show(tvb of one message, pinfo, tree) adds it to the packet.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local exchanges = host.load("dispatch/exchanges")
local pieces = host.load("dispatch/pieces")

local M = {}

-- A longer message is none that is followed: no program sends such, and Wireshark's special values of desegment_len
-- begin at 268435454.
M.MAX = 134217728

-- Messages shown of one record, and layers that they may add to a packet: at 500 (its preference gui.max_tree_depth)
-- Wireshark gives a packet up as "Dissector bug".  What comes after these is counted.
local MOST, MOST_LAYERS = 500, 400

-- The Proto at Wireshark's ports (dispatch/payload.lua), which also has the fields for what is not shown.
local F = {
    messages = ProtoField.uint32("unixsock.more.messages", "More messages"),
    bytes = ProtoField.uint32("unixsock.more.bytes", "Bytes of these messages"),
    unknown = ProtoField.bytes("unixsock.undecoded", "Bytes that are no message"),
    part = ProtoField.uint32("unixsock.part", "Bytes of a message that is not complete"),
}
M.payload_proto = Proto("unixsock_payload", "Unix Domain Socket Payload")
M.payload_proto.fields = { F.messages, F.bytes, F.unknown, F.part, table.unpack(exchanges.fields) }
local broken = ProtoExpert.new("unixsock.expert.protocol", "Protocol does not work", expert.group.DEBUG,
    expert.severity.ERROR)
M.payload_proto.experts = { broken, table.unpack(exchanges.experts) }

-- Shows that a protocol's file does not work.
function M.show_broken(tvb, tree, wrong)
    local t = tree:add(M.payload_proto, tvb:range(0, 0), "Payload not decoded")
    t:add_proto_expert_info(broken, wrong)
end

---------------------------------------------------------------------------------------------------
-- The Info column

local ENOUGH_INFO = 512 -- bytes of Info, beyond which nothing is appended
local MAX_INFO = 4096 -- Wireshark keeps no more of a column
local info_length = 0

-- Adds to the Info column as Wireshark's own dissectors do: the first message replaces, the others follow.
function M.info(pinfo, name, text)
    if #text > MAX_INFO then text = text:sub(1, MAX_INFO) end
    if M.filled ~= pinfo.number then
        pinfo.cols.protocol, pinfo.cols.info = name, text
        M.filled, info_length = pinfo.number, #text
    elseif info_length < ENOUGH_INFO then
        pinfo.cols.info:append(", " .. text)
        info_length = info_length + 2 + #text
    end
end

-- Whether a protocol of ours has filled the columns for this record.
function M.filled_columns(rec) return M.filled == rec.number end

---------------------------------------------------------------------------------------------------
-- Messages

local shown, layers, of_record = 0, 0, nil -- in the record that is being dissected
local counted = 0 -- messages that have been found in it, shown or not

-- Called before each record's payload is dissected.
function M.start_record(number)
    M.filled, shown, layers, of_record, counted = nil, 0, 0, number, 0
    pieces.start_record()
end

-- The place of the next message in the capture, as one number: the same in every pass.
function M.message_place() return of_record * 2 ^ 20 + counted end

-- Whether the next message (or if `showing` is true, the one that is shown) is the first of its direction of a
-- conversation that was seen from its start.
function M.is_first(showing)
    local rec = host.current
    if not rec.shared.from_start or counted ~= (showing and 1 or 0) then return false end
    local number = pieces.first_message(showing)
    return not number or number == rec.number or not showing and rec.number < number
end

-- Whether one more message can be shown that adds `more` layers to the packet.
local function room(more)
    return shown < MOST and layers + more <= MOST_LAYERS
end

-- How many fields of a message of text are shown.
M.MOST_FIELDS = MOST

-- Shows that there are more than those in a message; `at`: where they begin.
function M.more_fields(t, tvb, at, count)
    local range = tvb:range(at)
    t:add(M.payload_proto, range, ("%d more fields, %d bytes"):format(count, range:len()))
end

-- Shows that there are `count` more messages in `bytes` bytes from `at` on; gives the item.
function M.show_more(tvb, pinfo, tree, at, bytes, count)
    local words = ("%d more message%s, %d bytes"):format(count, count == 1 and "" or "s", bytes)
    local range = tvb:range(at, bytes)
    local t = tree:add(M.payload_proto, range, words)
    t:add(F.messages, range, count):set_generated()
    t:add(F.bytes, range, bytes):set_generated()
    if M.filled == pinfo.number then pinfo.cols.info:append(", " .. words) end
    return t
end

-- Shows the message in bytes from `at` to `stop`, unless it adds nothing to the packet list, which is all that is
-- asked for.
local function put(rules, tvb, at, stop, pinfo, tree)
    shown, layers = shown + 1, layers + rules.layers
    exchanges.next_message()
    if rules.quiet and M.filled == pinfo.number and info_length >= ENOUGH_INFO and not tree:referenced(rules.quiet) then
        return
    end
    rules.show(tvb:range(at, stop - at):tvb(), pinfo, tree)
end

-- Shows that the bytes from `at` on are a part of a message that is not complete.
local function show_part(tvb, tree, at)
    local range = tvb:range(at)
    local t = tree:add(M.payload_proto, range, ("Part of a message, %d bytes"):format(range:len()))
    t:add(F.part, range, range:len()):set_generated()
    pieces.part = true
end

-- Shows what `text`, the bytes of `tvb`, has of a long message that began before.  Gives how many bytes that are.
local function continue_long(rules, tvb, text, pinfo, tree)
    local stop, size, whole = pieces.continue(rules, text, pinfo)
    if not stop then return 0 end
    if not size then
        show_part(tvb, tree, 0)
    elseif whole then
        counted = counted + 1
        put(rules, ByteArray.new(whole, true):tvb("Reassembled message"), 0, #whole, pinfo, tree)
    else
        local words = ("End of a message of %.0f bytes, which is too long or no longer in memory"):format(size)
        tree:add(M.payload_proto, tvb:range(0, stop), words)
        if rules.passed then rules.passed(1, pinfo) end
    end
    return stop
end

-- Shows each message in `tvb` by `rules` = { scan, show, layers, count, passed }.  In a stream the rest is asked for
-- again; a datagram's rest is shown as it is.  Gives what a dissector gives: the bytes taken, 0 if there is no message.
local function split(rules, tvb, pinfo, tree)
    local last = tvb:len()
    local text = tvb:raw(0, last)
    local scan, can_wait = rules.scan, pinfo.can_desegment > 0
    if of_record ~= pinfo.number then M.start_record(pinfo.number) end
    local at = can_wait and continue_long(rules, tvb, text, pinfo, tree) or 0
    local from, state = pieces.resume(rules, at, last, pinfo)
    local more, more_at = 0, nil
    local taken, size
    while at < last do
        if not more_at and not room(rules.layers) then more_at = at end
        if more_at and rules.count and from == at then -- faster than one by one
            local count
            count, at = rules.count(text, at, last)
            more, from = more + count, at
            if at >= last then break end
        end
        local stop, looked = scan(text, from, last, state)
        if stop == false or stop and (stop <= at or stop - at > M.MAX) then
            taken = at
            break
        elseif not stop or stop > last then
            size, from = stop and stop - at, looked
            break
        end
        counted = counted + 1
        if more_at then
            more = more + 1
        else
            put(rules, tvb, at, stop, pinfo, tree)
        end
        at, from = stop, stop
        if next(state) then state = {} end
    end
    if at < last and not taken and not can_wait then -- what ends in the middle of a message
        if more_at then
            more = more + 1
        else
            put(rules, tvb, at, last, pinfo, tree)
        end
        at = last
    end
    if more > 0 then
        local t = M.show_more(tvb, pinfo, tree, more_at, at - more_at, more)
        exchanges.next_message()
        if rules.passed then rules.passed(more, pinfo, text, more_at, at, t) end
    end
    if at >= last then
        pieces.done(pinfo)
        return last
    end
    if taken then
        pieces.done(pinfo)
        if taken > 0 then tree:add(F.unknown, tvb:range(taken)) end
        return taken > 0 and last or 0
    end
    if size then
        pieces.done(pinfo)
        pinfo.desegment_offset, pinfo.desegment_len = at, at + size - last
    elseif pieces.wait(rules, text, at, from, state, pinfo) then
        pinfo.desegment_offset, pinfo.desegment_len = at, 0x0fffffff -- DESEGMENT_ONE_MORE_SEGMENT
    else
        show_part(tvb, tree, at)
    end
    return last
end

-- The dissector function of a stream of messages.  `adds`: how many layers show() adds to the packet by calling
-- Wireshark's dissectors, 0 by default.  count(text, from, last): optional, a fast way to count whole messages; gives
-- their number and where they end.  passed(count, pinfo, text, from, stop, item): optional, is called for messages that
-- show() does not get: their number, and where they are, unless they are no longer in memory; a protocol that has it
-- gets all others in every pass (dispatch/exchanges.lua wants that).
function M.cutter(scan, show, adds, count, passed)
    local rules = { scan = scan, show = show, layers = adds or 0, count = count, passed = passed }
    return function(tvb, pinfo, tree) return split(rules, tvb, pinfo, tree) end
end

-- Makes `proto` the dissector of a stream of messages, as above; gives it back.
function M.dissector(proto, scan, show, adds, count, passed)
    local rules = { scan = scan, show = show, layers = adds or 0, count = count, passed = passed }
    function proto.dissector(tvb, pinfo, tree)
        if not adds and not passed and not rules.quiet then rules.quiet = Dissector.get(proto.name:lower()) end
        return split(rules, tvb, pinfo, tree)
    end
    return proto
end

-- A passed() for protocols in which each message of the client asks, and each of the server answers, in order.
function M.in_order(count, pinfo) exchanges.pass_over(count, not host.current.way.src_is_server, pinfo) end

-- The Proto of a declared protocol with these ProtoFields.
function M.proto(protocol, fields)
    local name = protocol.name:gsub("%.", "_")
    local proto, list = Proto(name, protocol.title), {}
    for _, field in pairs(fields) do list[#list + 1] = field end
    proto.fields = list
    return proto
end

---------------------------------------------------------------------------------------------------
-- Common kinds of messages

-- A scan() for messages that end with the byte `mark`.
function M.until_byte(mark)
    return function(text, from, last)
        local found = text:find(mark, from + 1, true)
        if found then return found end
        return nil, last
    end
end

-- Where the last `mark` in `text` ends, or 0.
function M.last(text, mark)
    local found = text:reverse():find(mark:reverse(), 1, true)
    return found and #text - found + 1 or 0
end

-- A count() for the same.
function M.count_byte(mark)
    local pattern = mark == "\0" and "%z" or mark
    return function(text, from)
        local stop = M.last(text, mark)
        if stop <= from then return 0, from end
        return select(2, text:sub(from + 1, stop):gsub(pattern, "")), stop
    end
end

-- A scan() for messages that begin with a head of `head` bytes, in which length(text, at) reads how long the whole
-- message is; false where this is no message.
function M.by_head(head, length)
    return function(text, from, last)
        if last - from < head then return nil, from end
        local size = length(text, from)
        return size and from + size
    end
end

return M
