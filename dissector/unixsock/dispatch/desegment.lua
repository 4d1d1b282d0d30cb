-- Beginnings for which Wireshark's own dissectors do not wait: given a few bytes of a greeting or a first
-- line, they take them for something else, and the conversation stays unread.  Here we wait in their place.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local M = {}
M.ENOUGH = 2048 -- it never waits for more bytes than these

-- More is needed while `bytes` is a shorter beginning of `greeting`.
local function greeting(whole)
    return function(bytes) return #bytes < #whole and whole:sub(1, #bytes) == bytes end
end

local function line(bytes) return not bytes:find("\n", 1, true) end

-- The version is guessed from a whole greeting, or a whole frame of 0-9: type, channel, length, body, 0xce.
local function amqp(bytes)
    if bytes:sub(1, 4) == ("AMQP"):sub(1, #bytes) then return #bytes < 8 end
    if not bytes:find("^[\1-\3\8]") then return false end
    return #bytes < 7 or #bytes < 8 + Struct.unpack(">I4", bytes, 4)
end

local preface = greeting("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
local RULES = {
    http2 = preface,
    amqp = amqp,
    ssh = function(bytes) return bytes:sub(1, 4) == ("SSH-"):sub(1, #bytes) and line(bytes) end,
    -- Text, not the binary protocol with its two magic numbers.
    memcache = function(bytes) return bytes:find("^[a-zA-Z]") and line(bytes) end,
    -- The head of a sequence, with up to four bytes of length.
    ldap = function(bytes) return bytes:byte() == 0x30 and #bytes < 7 end,
}

-- Wireshark's "mysql" takes minutes for as many packets as zeros make.
local MOST_PACKETS = 2000
local TOO_MANY = {
    mysql = function(bytes)
        local at = 1
        for _ = 1, MOST_PACKETS do
            if at + 3 > #bytes then return false end
            at = at + 4 + Struct.unpack("<I3", bytes, at)
        end
        return true
    end,
}

-- Whether the dissector called `name` had better not get the `length` bytes in `tvb`: it would never end.
function M.too_many(name, tvb, length)
    local rule = TOO_MANY[name]
    return rule and length > 4 * MOST_PACKETS and rule(tvb:raw(0, length)) or false
end

-- Whether the dissector called `name` should get more than the `length` bytes in `tvb`, which begin a message.
function M.waits(name, tvb, length)
    local rule = RULES[name]
    return rule and rule(tvb:raw(0, length)) or false
end

return M
