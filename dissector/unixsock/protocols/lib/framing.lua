-- What our own dissectors share: cutting a stream into messages, and remembering nothing.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local M = {}

-- Calls show(tvb of one message, pinfo, tree) for each message in `tvb`.  length(tvb, at) gives the bytes of the
-- message that begins at `at`, nil where more bytes are needed to tell, false where it is none.  In a stream the
-- rest is asked for again; a datagram's rest is shown as it is.  Gives what a dissector gives.
function M.split(tvb, pinfo, tree, length, show)
    local at, last = 0, tvb:len()
    while at < last do
        local size = length(tvb, at)
        if size == false or size and size <= 0 then return at end
        if (not size or at + size > last) then
            if pinfo.can_desegment == 0 then
                show(tvb:range(at):tvb(), pinfo, tree)
                return last
            end
            pinfo.desegment_offset = at
            pinfo.desegment_len = size and at + size - last or 0x0fffffff -- DESEGMENT_ONE_MORE_SEGMENT
            return last
        end
        show(tvb:range(at, size):tvb(), pinfo, tree)
        at = at + size
    end
    return last
end

-- A length() for messages that end with the byte `mark`.
function M.until_byte(mark)
    return function(tvb, at)
        local found = tvb:raw(at, tvb:len() - at):find(mark, 1, true)
        return found or nil
    end
end

-- Adds to the Info column as Wireshark's own dissectors do: the first replaces, the others follow.
function M.info(pinfo, name, text)
    pinfo.cols.protocol = name
    if M.fresh ~= pinfo.number then
        pinfo.cols.info = text
        M.fresh = pinfo.number
    else
        pinfo.cols.info:append(", " .. text)
    end
end

function M.start() M.fresh = nil end

-- A Proto with these ProtoFields.
function M.proto(name, title, fields)
    local proto, list = Proto(name, title), {}
    for _, field in pairs(fields) do list[#list + 1] = field end
    proto.fields = list
    return proto
end

-- Makes `proto` the dissector of a stream of messages, as split() cuts and shows them; gives it back.
function M.dissector(proto, length, show)
    function proto.dissector(tvb, pinfo, tree)
        M.start()
        return M.split(tvb, pinfo, tree, length, show)
    end
    return proto
end

-- Whether one of our own dissectors has filled the columns for this record.
function M.said(rec) return M.fresh == rec.number end

return M
