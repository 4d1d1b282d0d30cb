-- Ways to cut a stream into messages for a dissector that knows no reassembly, by the names that users write.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local framing = host.load("protocols/lib/framing")
local json = host.load("protocols/lib/json_text")

-- A length of `head` bytes, as Struct.unpack reads it by `format`, and so many bytes.
local function by_length(head, format)
    return framing.by_head(head, function(text, at)
        local size = head + Struct.unpack(format, text, at + 1)
        return size <= framing.MAX and size
    end)
end

local SCANS = {
    { "lines", framing.until_byte("\n"), framing.count_byte("\n") },
    { "nul", framing.until_byte("\0"), framing.count_byte("\0") },
    { "json", json.scan },
    { "u16be", by_length(2, ">I2") }, { "u16le", by_length(2, "<I2") },
    { "u32be", by_length(4, ">I4") }, { "u32le", by_length(4, "<I4") },
}

local M = { names = {} }

for _, row in ipairs(SCANS) do
    local name, scan, count = row[1], row[2], row[3]
    M.names[#M.names + 1] = name
    -- The dissector function that calls `dissector` with each whole message, its length or end mark included.
    M[name] = function(dissector)
        return framing.cutter(scan, function(message, pinfo, tree)
            pinfo.can_desegment = 0
            pcall(dissector.call, dissector, message, pinfo, tree)
            pinfo.desegment_len = 0
        end, 1, count)
    end
end

return M
