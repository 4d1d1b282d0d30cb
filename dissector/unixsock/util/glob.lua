-- Globs: * ? and [...]; * also matches "/".
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local M = {}

-- The parts of `glob` between its stars: a Lua pattern that matches each, and how many bytes it matches.
local function parts_of(glob)
    local parts, out, at = {}, {}, 1
    while at <= #glob do
        local c = glob:sub(at, at)
        local set, after = glob:match("^%[(!?%]?[^%]]*)%]()", at)
        if c == "*" then
            parts[#parts + 1] = { table.concat(out), #out }
            out = {}
        elseif c == "?" then
            out[#out + 1] = "."
        elseif c == "[" and set then
            out[#out + 1] = "[" .. set:gsub("[%%%[%]^]", "%%%0"):gsub("^!", "^") .. "]"
            at = after - 1
        else
            out[#out + 1] = c:gsub("%W", "%%%0")
        end
        at = at + 1
    end
    parts[#parts + 1] = { table.concat(out), #out }
    return parts
end

-- A function that tells whether a text matches `glob`, and how many characters the glob has besides its stars.  Part
-- by part, since one pattern for all of it would try each place for each star.
function M.matcher(glob)
    local parts = parts_of(glob)
    local count, characters = #parts, 0
    for _, part in ipairs(parts) do characters = characters + part[2] end
    local first, last = "^" .. parts[1][1], "^" .. parts[count][1] .. "$"
    local head, tail = parts[1][2], parts[count][2]
    if count == 1 then
        return function(text) return #text == head and text:find(last) ~= nil end, characters
    end
    return function(text)
        if #text < head + tail or not text:find(first) or not text:find(last, #text - tail + 1) then return false end
        local at = head + 1
        for i = 2, count - 1 do
            local _, stop = text:find(parts[i][1], at)
            if not stop then return false end
            at = stop + 1
        end
        return at <= #text - tail + 1
    end, characters
end

return M
