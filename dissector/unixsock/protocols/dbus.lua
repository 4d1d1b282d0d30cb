-- D-Bus as it travels on a socket: the SASL handshake in lines, then binary messages, several or parts of one
-- in a write.  Wireshark's "dbus" takes one whole message at a time.  Source: D-Bus Specification.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local protocol = host.load("protocols/lib/declare")({
    name = "unixsock.dbus", title = "D-Bus Transport",
    paths = {
        "*/dbus/system_bus_socket", "/run/user/*/bus", "@/tmp/dbus-*", "/tmp/dbus-*", "*/at-spi/bus*",
        "*/at-spi2-*/socket", "*/ibus/dbus-*", "/run/systemd/private", "/run/user/*/systemd/private", "*/dbus*sock*",
        "*/pulse/dbus-socket", "*bus_socket",
    },
    stream = {
        "^\0?AUTH [%u%d_]+", "^\0?AUTH\r\n", "^\0BEGIN\r\n", "^l[\1-\4][\0-\15]\1", "^B[\1-\4][\0-\15]\1",
    },
})

local printable = host.load("util/text").printable
local exchanges = host.load("dispatch/exchanges")
local framing = host.load("protocols/lib/framing")
local F = {
    line = ProtoField.string("unixsock.dbus.auth", "SASL line"),
    command = ProtoField.string("unixsock.dbus.auth.command", "Command"),
}
local proto = framing.proto(protocol, F)

local dbus = DissectorTable.get("wtap_encap"):get_dissector(wtap.DBUS)

local COMMANDS, LONGEST = {}, 18
for word in ("AUTH CANCEL BEGIN DATA ERROR NEGOTIATE_UNIX_FD REJECTED OK AGREE_UNIX_FD"):gmatch("%S+") do
    COMMANDS[word] = true
end

-- A message begins with its byte order, a line of the handshake with a NUL (once) or a capital letter.
-- "B" is both: a big-endian message has its type, 1 to 4, in the next byte.
local function is_message(first, second)
    if first == 0x6c then return true end
    if first ~= 0x42 then return false end
    return second and second <= 4
end

-- A line of the handshake.  Of at most LINE bytes, so that looking for its end again costs little.
local LINE = 16384
local function line_end(text, from, last)
    local first = text:byte(from + 1) == 0 and from + 1 or from
    local word = text:match("^[%u_]*", first + 1)
    if #word > LONGEST or first + #word < last and not COMMANDS[word] then return false end
    local _, stop = text:find("^[^\r\n]*\r\n", first + 1)
    if stop then return stop end
    if last - from >= LINE or text:find("^[^\r\n]*[\r\n].", first + 1) then return false end
    return nil, from
end

local function scan(text, from, last)
    if from >= last then return nil, from end
    local first, second = text:byte(from + 1, from + 2)
    local message = is_message(first, second)
    if message == false then return line_end(text, from, last) end
    if message == nil or last - from < 16 then return nil, from end
    local body, fields = Struct.unpack((first == 0x6c and "<" or ">") .. "I4xxxxI4", text, from + 5)
    local total = 16 + fields + (-fields) % 8 + body
    return total <= framing.MAX and from + total
end

-- Header fields by their code, and the basic types that they have.
local INTERFACE, MEMBER, ERROR_NAME, REPLY_SERIAL, DESTINATION, SENDER = 2, 3, 4, 5, 6, 7
local MOST_FIELDS, NO_REPLY = 16, 1

-- The header fields of the message `text`, by their code.
local function header_fields(text, order)
    local fields, at = {}, 16
    local stop = math.min(at + Struct.unpack(order .. "I4", text, 13), #text)
    for _ = 1, MOST_FIELDS do
        at = at + (-at) % 8
        if at + 8 > stop then break end
        local code, size, kind, zero = text:byte(at + 1, at + 4)
        if size ~= 1 or zero ~= 0 then break end
        at = at + 4
        if kind == 0x67 then -- g, a signature
            at = at + text:byte(at + 1) + 2
        else
            local number = Struct.unpack(order .. "I4", text, at + 1)
            at = at + 4
            if kind == 0x73 or kind == 0x6f then -- s and o, strings
                if number > stop - at then break end
                fields[code] = text:sub(at + 1, at + number)
                at = at + number + 1
            else
                fields[code] = number
            end
        end
    end
    return fields
end

-- Calls and their answers carry the caller's serial; what a bus passes on has the caller's name, too.
local function match(text, pinfo, tree)
    local kind, flags = text:byte(2, 3)
    if #text < 16 or kind > 3 or kind == 1 and flags % 2 == NO_REPLY then return end
    local order = text:byte(1) == 0x6c and "<" or ">"
    local fields = header_fields(text, order)
    if kind == 1 then
        local member = fields[MEMBER] or "?"
        local method = fields[INTERFACE] and fields[INTERFACE] .. "." .. member or member
        local serial = Struct.unpack(order .. "I4", text, 9)
        exchanges.question("D-Bus", method, ("%d %s"):format(serial, fields[SENDER] or ""), tree, pinfo)
        return
    end
    local serial = tonumber(fields[REPLY_SERIAL])
    if not serial then return end
    local key = ("%d %s"):format(serial, fields[DESTINATION] or "")
    if not exchanges.waits(key) then key = ("%d "):format(serial) end
    exchanges.answer(key, kind == 3 and (fields[ERROR_NAME] or "error") or nil, tree, pinfo)
end

local function show(message, pinfo, tree)
    if is_message(message:raw(0, math.min(2, message:len())):byte(1, 2)) then
        pcall(dbus.call, dbus, message, pinfo, tree)
        match(message:raw(0, message:len()), pinfo, tree)
        return
    end
    local text = message:raw(0, message:len()):gsub("^%z", ""):gsub("\r\n$", "")
    local start = message:len() > #text + 2 and 1 or 0
    local t = tree:add(proto, message:range(0, message:len()), "D-Bus handshake: " .. printable(text))
    t:add(F.line, message:range(start, #text), printable(text))
    local command = text:match("^[%u_]+")
    if command then t:add(F.command, message:range(start, #command), command) end
    framing.info(pinfo, "D-Bus", "SASL " .. printable(text))
end

protocol.proto = framing.dissector(proto, scan, show, 1)
return protocol
