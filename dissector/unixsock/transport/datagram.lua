-- A datagram's or seqpacket's record as a UDP datagram, for Wireshark's own dissector.  A message that was too large
-- for a record comes in several, which are joined first.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local payload = host.load("dispatch/payload")
local record = host.load("record/parse")
local stream = host.load("transport/stream")
local layout = host.load("record/format")
local choices = host.prefs
local FLAG, has = layout.FLAG, layout.has

local M = {}
local open -- parts of messages that are not complete yet, by direction
local joined -- whole messages, by the frame that completes them: needed when that frame is shown again
local frames, first, kept_bytes -- those frames in the order of completion: only the latest are kept

local MAX_MESSAGE, MAX_KEPT = 16777216, 16777216 -- bytes of a message that is joined, and of all that are kept

function M.reset()
    open, joined = {}, {}
    frames, first, kept_bytes = {}, 1, 0
end

M.reset()

local function keep(number, message)
    joined[number], frames[#frames + 1], kept_bytes = message, number, kept_bytes + #message
    while kept_bytes > MAX_KEPT do
        local old = frames[first]
        kept_bytes, joined[old], frames[first], first = kept_bytes - #joined[old], nil, false, first + 1
    end
end

-- The whole message if this record completes one, or nil.  What is no longer kept is joined again where all frames
-- are read once more in their order.
local function join(rec, tvb, pinfo)
    local number = pinfo.number
    if joined[number] then return joined[number] end
    local key = record.src_sock(rec.way) .. record.dst_sock(rec.way)
    local message = open[key]
    if rec.offset == 0 then
        message = { number = rec.message, have = 0 }
        open[key] = message
    end
    if not message or message.number ~= rec.message or message.have ~= rec.offset
        or message.have + rec.caplen > MAX_MESSAGE then
        open[key] = nil -- a part is missing
        return nil
    end
    message[#message + 1] = tvb:raw(rec.shared.header_len, rec.caplen)
    message.have = message.have + rec.caplen
    if has(rec.shared.flags, FLAG.MORE) then return nil end
    open[key] = nil
    keep(number, table.concat(message))
    return joined[number]
end

local udp = Dissector.get("udp")
local pack, sub, pcall, call = Struct.pack, string.sub, pcall, udp.call
local LONGEST = 65535 -- that fits in the header; 0 is a jumbogram's

-- Hands the record's message, given its bytes too, to the UDP dissector, for Follow and the lists of conversations.
-- True if a payload dissector has shown something.
function M.dissect(rec, bytes, tvb, pinfo, tree, own_tree, length_field)
    local message
    local from = rec.shared.header_len
    if rec.offset > 0 or has(rec.shared.flags, FLAG.MORE) then
        message = join(rec, tvb, pinfo)
        if not message then return false end
        if own_tree then own_tree:add(length_field, #message):set_generated() end
    else
        message = sub(bytes, from + 1, from + rec.caplen)
    end
    stream.address(rec, pinfo, tree)
    if not choices.reassemble then
        if message == "" then return false end
        pinfo.src_port, pinfo.dst_port = Struct.unpack(">I2I2", rec.way.ports)
        return payload.dissect_raw(rec, ByteArray.new(message, true):tvb("Unix message"), pinfo, tree)
    end
    local length = #message + 8
    local header = rec.way.ports .. pack(">I2I2", length > LONGEST and 0 or length, 65535)
    local elsewhere = stream.layer(rec, own_tree, "A UDP datagram made of it, for Follow Stream and conversations")
    payload.open(rec, elsewhere and tree)
    pcall(call, udp, ByteArray.new(header .. message, true):tvb("Unix message"), pinfo, elsewhere or tree)
    return payload.finish() and message ~= ""
end

return M
