-- Recognises a protocol by the first bytes of a message, where neither the user nor the path tells.
-- Only marks that random data does not carry: a wrong guess costs more than none.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local M = {}
M.ENOUGH = 64 -- bytes that recognise() wants to see

local METHODS = {}
for word in ("GET HEAD POST PUT DELETE OPTIONS PATCH CONNECT TRACE NOTIFY SUBSCRIBE"):gmatch("%S+") do
    METHODS[word] = true
end

local STREAM = {
    { "^PRI %* HTTP/2", "http2" }, { "^HTTP/1%.[01] %d%d%d", "http" },
    { "^%z?AUTH [%u%d_]+", "unixsock.dbus" }, { "^%zBEGIN\r\n", "unixsock.dbus" },
    { "^l[\1-\4][%z-\15]\1", "unixsock.dbus" }, { "^B[\1-\4][%z-\15]\1", "unixsock.dbus" },
    { "^SSH%-[12]%.", "ssh" }, { "^\22\3[%z-\4]..[\1\2]", "tls" }, { "^AMQP[%z-\3]", "amqp" },
    { "^[%*][%d]+\r\n%$%d+\r\n", "unixsock.resp" }, { "^RFB %d%d%d%.%d%d%d\n", "VNC" }, { "^REDQ", "SPICE" },
    { "^l%z\11%z%z%z", "x11" }, { "^B%z%z\11%z%z", "x11" },
    { "^OK MPD ", "unixsock.mpd" }, { "^OK Pleased to meet you", "unixsock.assuan" },
    { "^{\"QMP\"", "unixsock.json" }, { "^{\"method\":\"[%w%.]+%.[%w]+\"", "unixsock.varlink" },
    { "^%s*{%s*\"", "unixsock.json" }, { "^\255%z%z%z%z%z%z%z[\1\2]\127", "ZMTP" },
    { "^\16..?%z\4MQTT[\3-\5]", "mqtt" },
}
local MESSAGE = {
    { "^<%d%d?%d?>", "syslog" }, { "^[A-Z][A-Z_]+=[^%z]*$", "unixsock.notify" },
    { "^[A-Z_]+=[^\n]*\n[A-Z_]+[=\n]", "unixsock.journald" }, { "^{\"", "unixsock.json" },
}

-- Whether `bytes` may be the beginning of an HTTP message that is still too short to tell.
function M.begins_http(bytes)
    if #bytes >= 16 then return false end
    if ("HTTP/1."):sub(1, #bytes) == bytes:sub(1, 7) then return true end
    local word, rest = bytes:match("^(%u+)(.*)$")
    if not word or rest:find("[^ -~]") then return false end
    if METHODS[word] then return rest == "" or rest:find("^ [/*h]?") ~= nil end
    for method in pairs(METHODS) do
        if rest == "" and method:sub(1, #word) == word then return true end
    end
    return false
end

-- The name of a dissector for a payload that begins with `bytes`, or nil.
function M.recognise(bytes, rec)
    if rec.type == host.SOCKET_TYPE.STREAM or rec.type == 0 then
        local word = bytes:match("^(%u+) [/*h]")
        if word and METHODS[word] then return "http" end
    end
    local rules = rec.type == host.SOCKET_TYPE.DGRAM and MESSAGE or STREAM
    for i = 1, #rules do
        if bytes:find(rules[i][1]) then return rules[i][2] end
    end
end

return M
