-- Recognises a protocol in a conversation whose beginning was not captured: a record is a chain of whole messages, as
-- each begins where the one before it ends, and the last ends with the record.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local protocols = host.load("dispatch/registry").protocols
local M = {}
M.MOST = 16384 -- bytes that are looked at; a longer record is not recognised

local unpack, byte = Struct.unpack, string.byte

-- PostgreSQL: the server's messages end with ReadyForQuery; a client's are a query, or end with Sync or Flush.
local FROM_SERVER = "[TDCZ123nstIENSKAGHWdcVv]"
local FROM_CLIENT = "[QPBEDSCHFfdcX]"

local function pgsql(text)
    local at, first, last = 1, text:sub(1, 1), nil
    local server, client = first:find(FROM_SERVER), first:find(FROM_CLIENT)
    while at <= #text do
        if at + 4 > #text then return false end
        local letter, size = text:sub(at, at), unpack(">I4", text, at + 1)
        if size < 4 or at + size > #text then return false end
        server, client = server and letter:find(FROM_SERVER), client and letter:find(FROM_CLIENT)
        if not server and not client then return false end
        last = { letter, size, at }
        at = at + 1 + size
    end
    if last[1] == "Z" then return server and last[2] == 5 and text:sub(-1):find("^[ITE]$") ~= nil end
    if last[1] == "Q" then return client and text:find("^%s*[%a%(/-]", last[3] + 5) ~= nil and byte(text, -1) == 0 end
    return client and (last[1] == "S" or last[1] == "H") and last[2] == 4 and first:find("[PB]") ~= nil
end

-- MySQL: one packet with the number 0 and a statement or the name of a database.
local function mysql(text)
    return #text > 8 and unpack("<I3", text, 1) == #text - 4 and text:find("^%z[\2\3\22][%a%(/][%g%s]", 4) ~= nil
end

-- HTTP/2: by the frame's type, what its stream and its length can be.
local ON_STREAM, ON_CONNECTION, EITHER = 1, 2, 3
local FRAMES = { -- which, the flags that there are, the length if there is one only
    [0] = { ON_STREAM, 0x09 }, { ON_STREAM, 0x2d }, { ON_STREAM, 0, 5 }, { ON_STREAM, 0, 4 }, { ON_CONNECTION, 1 },
    [6] = { ON_CONNECTION, 1, 8 }, [7] = { ON_CONNECTION, 0 }, [8] = { EITHER, 0, 4 }, [9] = { ON_STREAM, 4 },
}
local MAX_FRAME, MAX_STREAM = 16384, 0xffffff

local function http2(text)
    local at, some = 1, false
    while at <= #text do
        if at + 8 > #text then return false end
        local size, kind, flags, stream = unpack(">I3", text, at), byte(text, at + 3), byte(text, at + 4),
            unpack(">I4", text, at + 5)
        local frame = FRAMES[kind]
        if not frame or size > MAX_FRAME or stream > MAX_STREAM or at + 8 + size > #text then return false end
        if stream == 0 and frame[1] == ON_STREAM or stream > 0 and frame[1] == ON_CONNECTION then return false end
        if stream > 0 and stream % 2 == 0 then return false end -- a pushed one
        some = some or size > 0 or kind == 4 and flags == 1
        if frame[3] and size ~= frame[3] or kind == 4 and size % 6 > 0 then return false end
        for bit = 0, 7 do
            local mask = 2 ^ bit
            if math.floor(flags / mask) % 2 == 1 and math.floor(frame[2] / mask) % 2 == 0 then return false end
        end
        at = at + 9 + size
    end
    return some -- not frames of zeros alone
end

local RULES = { { http2, "http2" }, { pgsql, "pgsql" }, { mysql, "mysql" } }
for _, protocol in ipairs(protocols) do
    if protocol.joined then RULES[#RULES + 1] = { protocol.joined, protocol.name } end
end

-- The name of a dissector for the record's payload `text`, or nil.
function M.recognise(text)
    for i = 1, #RULES do
        if RULES[i][1](text) then return RULES[i][2] end
    end
end

return M
