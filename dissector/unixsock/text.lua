-- Bytes as text that does no harm on a terminal.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local M = {}

local function hex_escape(bytes)
    return (bytes:gsub(".", function(c) return ("\\x%02x"):format(c:byte()) end))
end

local TRAIL = "[\128-\191]"
local WELL_FORMED = { -- Unicode's table of well-formed UTF-8, without the C1 controls
    "^\194[\160-\191]", "^[\195-\223]" .. TRAIL, "^\224[\160-\191]" .. TRAIL,
    "^[\225-\236\238\239]" .. TRAIL .. TRAIL, "^\237[\128-\159]" .. TRAIL,
    "^\240[\144-\191]" .. TRAIL .. TRAIL, "^[\241-\243]" .. TRAIL .. TRAIL .. TRAIL,
    "^\244[\128-\143]" .. TRAIL .. TRAIL,
}

local UNSEEN = { -- of these, what changes the direction of the text around it or takes no room
    "^\194\173", "^\216\156", "^\226\128[\139-\143\168-\174]", "^\226\129[\160-\175]", "^\239\187\191",
}

-- Whether one of `patterns` matches `bytes` at `at`; the match.
local function match_any(patterns, bytes, at)
    for _, pattern in ipairs(patterns) do
        local found = bytes:match(pattern, at)
        if found then return found end
    end
end

-- The bytes, with escape(one byte) for each that is a control character, unseen or not UTF-8.
local function with_escapes(bytes, escape)
    if not bytes:find("[%c\128-\255]") then return bytes end
    local parts, at = {}, 1
    while at <= #bytes do
        local plain = bytes:match("^[\32-\126]+", at)
        if not plain and not match_any(UNSEEN, bytes, at) then plain = match_any(WELL_FORMED, bytes, at) end
        parts[#parts + 1] = plain or escape(bytes:sub(at, at))
        at = at + (plain and #plain or 1)
    end
    return table.concat(parts)
end

-- The bytes; control and unseen characters and what is not UTF-8 become \xNN.
function M.printable(bytes) return with_escapes(bytes, hex_escape) end

local GLANCE, HEX = 64, 16
local SEQUENCES = { "[\194-\223]" .. TRAIL, "[\224-\239]" .. TRAIL .. TRAIL, "[\240-\244]" .. TRAIL .. TRAIL .. TRAIL }
local IN_HEX = {}
for i = 0, 255 do IN_HEX[string.char(i)] = ("%02x "):format(i) end

-- Whether more than half of `bytes` is neither ASCII text nor, as far as that is cheap to tell, UTF-8.
local function is_binary(bytes)
    local strange = #bytes - #bytes:gsub("[^\t\r\n\32-\126]+", "")
    if strange * 2 <= #bytes then return false end
    if not bytes:find("[\194-\244]") then return true end
    for i, sequence in ipairs(SEQUENCES) do
        local _, found = bytes:gsub(sequence, "")
        strange = strange - found * (i + 1)
    end
    return strange * 2 > #bytes
end

-- The first bytes of a payload for the Info column, on one line: as text, or in hexadecimal if they are not text.
function M.glance(bytes)
    local head = bytes:sub(1, HEX)
    if head ~= "" and is_binary(head) then
        local digits = head:gsub(".", IN_HEX)
        return #bytes > HEX and digits .. "…" or digits:sub(1, -2)
    end
    head = bytes:sub(1, GLANCE)
    if #bytes > GLANCE then head = head:gsub("[\192-\255][\128-\191]*$", "") end -- perhaps cut in a character
    local text = with_escapes(head, function() return "\0" end):gsub("%z+", ".")
    return #bytes > GLANCE and text .. "…" or text
end

-- A socket name as people write it: @ for the abstract name space, as in /proc/net/unix.
function M.socket_name(name)
    return M.printable((name:gsub("%z", "@")))
end

-- A process as comm[pid], or as much of it as is known, or nil.
function M.process(comm, pid)
    if pid ~= 0 then return ("%s[%d]"):format(comm and M.printable(comm) or "", pid) end
    return comm and comm ~= "" and M.printable(comm) or nil
end

return M
