-- Recognises a protocol by the first bytes of a message, where neither the user nor the path tells.
-- Only marks that random data does not carry: a wrong guess costs more than none.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local SOCKET_TYPE = host.load("record/format").SOCKET_TYPE
local protocols = host.load("dispatch/registry").protocols
local M = {}
M.ENOUGH = 64 -- bytes that recognise() wants to see
M.SHORT = 16 -- fewer bytes may end before one can tell what begins with them

local METHODS = {}
for word in ("GET HEAD POST PUT DELETE OPTIONS PATCH CONNECT TRACE NOTIFY SUBSCRIBE"):gmatch("%S+") do
    METHODS[word] = true
end

-- Of Wireshark's own dissectors, after those that the protocols declare.  In these patterns "\0" stands for a NUL: a
-- class like %z can't begin a range.
local STREAM = {
    { "^PRI %* HTTP/2", "http2" }, { "^HTTP/1%.[01] %d%d%d", "http" },
    { "^\0\0[\6\12\18\24\30\36\42\48]\4\0\0\0\0\0\0[\1-\8]", "http2" }, -- a server's settings, which may come first
    { "^SSH%-[12]%.", "ssh" }, { "^\22\3[\0-\4]..[\1\2]", "tls" }, { "^AMQP[\0-\3]", "amqp" },
    { "^RFB %d%d%d%.%d%d%d\n", "VNC" }, { "^REDQ", "SPICE" },
    { "^l\0\11\0\0\0", "x11" }, { "^B\0\0\11\0\0", "x11" },
    { "^\16..?\0\4MQTT[\3-\5]", "mqtt" },
    -- PostgreSQL: version 3.0, or a request for TLS (5679), for GSS (5680) or to cancel (5678)
    { "^\0\0..\0\3\0\0[%l_]", "pgsql" }, { "^\0\0\0[\8\16]\4\210\22[\46-\48]", "pgsql" },
    { "^..\0\0\10%d+%.%d+%.", "mysql" }, -- the server's greeting, protocol 10
    { "^[gs]et [^%s%c]+[^%c]*\r\n", "memcache" }, { "^VALUE [^%s%c]+ %d+ %d+[ %d]*\r\n", "memcache" },
    { "^[agcdirtp]%l+ [^%s%c]+ %d+ %-?%d+ %d+[^%c]*\r\n", "memcache" }, { "^STORED\r\n", "memcache" },
    { "^\1\1\0\1\0\8.\0\0[\1-\3][\0\1]\0\0\0\0\0", "fcgi" }, -- BEGIN_REQUEST
    { "^0.\2\1[\0-\127][`wcBfJhlnP]", "ldap" }, -- a short sequence, message number, a request
    { "^.\0\0\0\100\255\255....[\6-\12]\0009P2000", "9p" },
    { "^220[ %-][^\r]*MTP", "smtp" }, { "^[EeLl][Hh][Ll][Oo] [^%c]+\r\n", "smtp" }, { "^HELO [^%c]+\r\n", "smtp" },
}
local MESSAGE = {
    { "^<%d%d?%d?>", "syslog" },
    { "^[\12\13\28\29][\2\18\34]\0[\44-\255]", "ptp" }, -- signaling and management
}
local GREETINGS = { "220 " } -- of which the first bytes may be written apart

do -- the protocols' own, before these
    local stream, message = {}, {}
    for _, protocol in ipairs(protocols) do
        for _, pattern in ipairs(protocol.stream or {}) do stream[#stream + 1] = { pattern, protocol.name } end
        for _, pattern in ipairs(protocol.message or {}) do message[#message + 1] = { pattern, protocol.name } end
        GREETINGS[#GREETINGS + 1] = protocol.greeting
    end
    for _, rule in ipairs(STREAM) do stream[#stream + 1] = rule end
    for _, rule in ipairs(MESSAGE) do message[#message + 1] = rule end
    STREAM, MESSAGE = stream, message
end

-- Whether these few bytes at the start of a connection may become one of the above: a NUL (D-Bus, or the upper
-- byte of a length), or the beginning of a greeting.  Some programs write those apart from the rest.
function M.begins(bytes)
    if #bytes >= M.SHORT then return false end
    if bytes:byte() == 0 then return #bytes < 9 or bytes:sub(5, 8) == "\255\255\255\255" end
    for _, greeting in ipairs(GREETINGS) do
        if bytes == greeting:sub(1, #bytes) then return true end
    end
    return false
end

-- Whether `bytes` may be the beginning of an HTTP message that is still too short to tell.
function M.begins_http(bytes)
    if #bytes >= M.SHORT then return false end
    if ("HTTP/1."):sub(1, #bytes) == bytes:sub(1, 7) then return true end
    local word, rest = bytes:match("^(%u+)(.*)$")
    if not word or rest:find("[^ -~]") then return false end
    if METHODS[word] then return rest == "" or rest:find("^ [/*h]?") ~= nil end
    for method in pairs(METHODS) do
        if rest == "" and method:sub(1, #word) == word then return true end
    end
    return false
end

-- The part of `rules` that a message beginning with the byte `b` may match.  Most rules begin with a certain
-- byte, and most messages that are nothing known would be compared with all of them for nothing.
local function possible(rules, b)
    local some = {}
    for _, rule in ipairs(rules) do
        local first, after = rule[1]:match("^%^(%[[^%]]+%])(.?)")
        if not first then first, after = rule[1]:match("^%^(%%?.)(.?)") end
        local optional = after:find("[?*]")
        if optional or string.char(b):find("^" .. first .. "$") then some[#some + 1] = rule end
    end
    return some
end

local by_byte = { [STREAM] = {}, [MESSAGE] = {} } -- such parts, made when they are first needed

-- The name of a dissector for a payload that begins with `bytes`, or nil.
function M.recognise(bytes, rec)
    if rec.shared.type == SOCKET_TYPE.STREAM or rec.shared.type == 0 then
        local word = bytes:match("^(%u+) [/*h]")
        if word and METHODS[word] then return "http" end
    end
    local rules = rec.shared.type == SOCKET_TYPE.DGRAM and MESSAGE or STREAM
    local b = bytes:byte() or 0
    local known = by_byte[rules]
    known[b] = known[b] or possible(rules, b)
    rules = known[b]
    for i = 1, #rules do
        if bytes:find(rules[i][1]) then return rules[i][2] end
    end
end

return M
