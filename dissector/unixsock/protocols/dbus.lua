-- D-Bus as it travels on a socket: the SASL handshake in lines, then binary messages, several or parts of one
-- in a write.  Wireshark's "dbus" takes one whole message at a time.  Source: D-Bus Specification.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local printable = host.load("util/text").printable
local framer = host.load("protocols/lib/framing")
local F = {
    line = ProtoField.string("unixsock.dbus.auth", "SASL line"),
    command = ProtoField.string("unixsock.dbus.auth.command", "Command"),
}
local proto = framer.proto("unixsock_dbus", "D-Bus Transport", F)

local MAX_MESSAGE = 134217728 -- of the specification
local dbus = DissectorTable.get("wtap_encap"):get_dissector(wtap.DBUS)

local COMMANDS = {}
for word in ("AUTH CANCEL BEGIN DATA ERROR NEGOTIATE_UNIX_FD REJECTED OK AGREE_UNIX_FD"):gmatch("%S+") do
    COMMANDS[word] = true
end

-- A message begins with its byte order, a line of the handshake with a NUL (once) or a capital letter.
-- "B" is both: a big-endian message has its type, 1 to 4, in the next byte.
local function is_message(tvb, at)
    local first = tvb:range(at, 1):uint()
    if first == 0x6c then return true end
    if first ~= 0x42 then return false end
    if at + 1 >= tvb:len() then return nil end
    return tvb:range(at + 1, 1):uint() <= 4
end

local function length(tvb, at)
    local message = is_message(tvb, at)
    if message == nil then return nil end
    local left = tvb:len() - at
    if not message then
        local text = tvb:raw(at, math.min(left, 16384))
        local word = text:match("^%z?([%u_]*)")
        local complete = #word < #text - (text:byte() == 0 and 1 or 0)
        if complete and not COMMANDS[word] then return false end
        local stop = select(2, text:find("\r\n", 1, true))
        return stop or (left < 16384 and nil)
    end
    if left < 16 then return nil end
    local little = tvb:range(at, 1):uint() == 0x6c
    local body, fields = Struct.unpack((little and "<" or ">") .. "I4xxxxI4", tvb:raw(at + 4, 12))
    local total = 16 + fields + (-fields) % 8 + body
    return total <= MAX_MESSAGE and total or false
end

local function show(message, pinfo, tree)
    if is_message(message, 0) then
        pcall(dbus.call, dbus, message, pinfo, tree)
        return
    end
    local text = message:raw(0, message:len()):gsub("^%z", ""):gsub("\r\n$", "")
    local start = message:len() > #text + 2 and 1 or 0
    local t = tree:add(proto, message:range(0, message:len()), "D-Bus handshake: " .. printable(text))
    t:add(F.line, message:range(start, #text), printable(text))
    local command = text:match("^[%u_]+")
    if command then t:add(F.command, message:range(start, #command), command) end
    framer.info(pinfo, "D-Bus", "SASL " .. printable(text))
end

return framer.dissector(proto, length, show)
