-- Bytes as text that does no harm on a terminal.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local M = {}

local TRAIL = "[\128-\191]"
local WELL_FORMED = { -- Unicode's table of well-formed UTF-8, without the C1 controls: first bytes, and what follows
    { 194, 194, "[\160-\191]" }, { 195, 223, TRAIL }, { 224, 224, "[\160-\191]" .. TRAIL },
    { 225, 236, TRAIL .. TRAIL }, { 237, 237, "[\128-\159]" .. TRAIL }, { 238, 239, TRAIL .. TRAIL },
    { 240, 240, "[\144-\191]" .. TRAIL .. TRAIL }, { 241, 243, TRAIL .. TRAIL .. TRAIL },
    { 244, 244, "[\128-\143]" .. TRAIL .. TRAIL },
}
local CHARACTER = {} -- by the first byte: a pattern for the character
for _, row in ipairs(WELL_FORMED) do
    for lead = row[1], row[2] do CHARACTER[lead] = "^." .. row[3] end
end
local UNSEEN = { -- of these, what changes the direction of the text around it or takes no room
    [194] = { "^.\173" }, [216] = { "^.\156" }, [239] = { "^.\187\191" },
    [226] = { "^.\128[\139-\143\168-\174]", "^.\129[\160-\175]" },
}

-- The character that begins `bytes`; nil if it is unseen, or none.
local function character(bytes)
    local lead = bytes:byte()
    for _, pattern in ipairs(UNSEEN[lead] or {}) do
        if bytes:find(pattern) then return nil end
    end
    return CHARACTER[lead] and bytes:match(CHARACTER[lead])
end

-- A function that gives bytes with escape[byte] for each that is a control character, unseen or not UTF-8.
local function escaper(escape)
    local known, count = {}, 0 -- by a first byte and what may follow it: a bounded cache
    local function replaced(bytes)
        local done = known[bytes]
        if done then return done end
        if count >= 4096 then known, count = {}, 0 end
        local plain = character(bytes) or ""
        done = plain .. bytes:sub(#plain + 1):gsub(".", escape)
        if #bytes <= 8 then known[bytes], count = done, count + 1 end
        return done
    end
    return function(bytes) return (bytes:gsub("[%c\128-\255][\128-\191]*", replaced)) end
end

local with_hex, with_dots = {}, {}
for i = 0, 255 do with_hex[string.char(i)], with_dots[string.char(i)] = ("\\x%02x"):format(i), "\0" end

-- The bytes; control and unseen characters and what is not UTF-8 become \xNN.
M.printable = escaper(with_hex)
local dotted = escaper(with_dots)

-- A command line, whose arguments are separated by NULs.
function M.arguments(bytes) return M.printable((bytes:gsub("%z", " "))) end

local GLANCE, HEX = 64, 16
local SEQUENCES = { "[\194-\223]" .. TRAIL, "[\224-\239]" .. TRAIL .. TRAIL, "[\240-\244]" .. TRAIL .. TRAIL .. TRAIL }
local IN_HEX = {} -- by the character, and by its number
for i = 0, 255 do
    IN_HEX[i] = ("%02x "):format(i)
    IN_HEX[string.char(i)] = IN_HEX[i]
end

-- The first HEX bytes are looked at without gsub, which takes five times as long: each packet comes here.
local STRANGE, LEADS = {}, {} -- by the byte: 1 if it is no ASCII text, or if a UTF-8 sequence may begin with it
for i = 0, 255 do
    STRANGE[i] = (i == 9 or i == 10 or i == 13 or i >= 32 and i <= 126) and 0 or 1
    LEADS[i] = i >= 194 and i <= 244 and 1 or 0
end

-- How many of HEX bytes are in the table `x`.
local function count(x, a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p)
    return x[a] + x[b] + x[c] + x[d] + x[e] + x[f] + x[g] + x[h]
        + x[i] + x[j] + x[k] + x[l] + x[m] + x[n] + x[o] + x[p]
end

-- HEX bytes, and that more follow.
local function in_hex(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p)
    local x = IN_HEX
    return x[a] .. x[b] .. x[c] .. x[d] .. x[e] .. x[f] .. x[g] .. x[h]
        .. x[i] .. x[j] .. x[k] .. x[l] .. x[m] .. x[n] .. x[o] .. x[p] .. "…"
end

-- Whether more than half of `bytes`, of which `strange` are no ASCII text, is not even UTF-8, as far as that is
-- cheap to tell.
local function is_binary(bytes, strange)
    for i, sequence in ipairs(SEQUENCES) do
        local _, found = bytes:gsub(sequence, "")
        strange = strange - found * (i + 1)
    end
    return strange * 2 > #bytes
end

-- The payload bytes[from] to bytes[to] for the Info column, on one line: its first bytes as text, or in
-- hexadecimal if they are not text.
function M.glance(bytes, from, to)
    local size = to - from + 1
    local more = size > HEX
    local strange
    if more then
        strange = count(STRANGE, bytes:byte(from, from + HEX - 1))
        if strange * 2 > HEX then
            if count(LEADS, bytes:byte(from, from + HEX - 1)) == 0
                or is_binary(bytes:sub(from, from + HEX - 1), strange) then
                return in_hex(bytes:byte(from, from + HEX - 1))
            end
        end
    else
        local head = bytes:sub(from, to)
        strange = #head - #head:gsub("[^\t\r\n\32-\126]+", "")
        if strange * 2 > #head and is_binary(head, strange) then
            local digits = head:gsub(".", IN_HEX)
            return digits:sub(1, -2)
        end
    end
    local cut = size > GLANCE
    local head = bytes:sub(from, cut and from + GLANCE - 1 or to)
    if cut then head = head:gsub("[\192-\255][\128-\191]*$", "") end -- perhaps cut in a character
    local text = dotted(head):gsub("%z+", ".")
    return cut and text .. "…" or text
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
