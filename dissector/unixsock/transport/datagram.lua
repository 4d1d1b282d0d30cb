-- Datagrams and seqpackets: a message goes to its protocol as it is.  One that was too large for a record
-- comes in several, which are joined first.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local payload = host.load("dispatch/payload")
local record = host.load("record/parse")
local stream = host.load("transport/stream")
local layout = host.load("record/format")
local FLAG, has = layout.FLAG, layout.has

local M = {}
local open -- parts of messages that are not complete yet, by direction
local joined -- whole messages, by the frame that completes them: needed when that frame is shown again

function M.reset()
    open, joined = {}, {}
end

M.reset()

-- The whole message if this record completes one, or nil.
local function join(rec, tvb, pinfo)
    if pinfo.visited then return joined[pinfo.number] end
    local key = record.src_sock(rec.way) .. record.dst_sock(rec.way)
    local message = open[key]
    if rec.offset == 0 then
        message = { number = rec.message, have = 0 }
        open[key] = message
    end
    if not message or message.number ~= rec.message or message.have ~= rec.offset then
        open[key] = nil -- a part is missing
        return nil
    end
    message[#message + 1] = tvb:raw(rec.says.header_len, rec.caplen)
    message.have = message.have + rec.caplen
    if has(rec.says.flags, FLAG.MORE) then return nil end
    open[key] = nil
    joined[pinfo.number] = table.concat(message)
    return joined[pinfo.number]
end

-- True if a payload dissector has shown something.
function M.dissect(rec, tvb, pinfo, tree, own_tree, length_field)
    if rec.caplen == 0 then return false end
    local message
    if rec.offset > 0 or has(rec.says.flags, FLAG.MORE) then
        local whole = join(rec, tvb, pinfo)
        if not whole then return false end
        message = ByteArray.new(whole, true):tvb("Joined message")
        if own_tree then own_tree:add(length_field, #whole):set_generated() end
    else
        message = tvb:range(rec.says.header_len, rec.caplen):tvb()
    end
    stream.address(rec, pinfo)
    pinfo.src_port, pinfo.dst_port = Struct.unpack(">I2I2", rec.way.ports)
    return payload.dissect_raw(rec, message, pinfo, tree)
end

return M
