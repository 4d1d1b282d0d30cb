-- ZMTP, what ZeroMQ speaks: a greeting, then frames: flags, u8 or u64 length (big-endian), a command or a part of a
-- message.  No frame begins like a greeting, so a message tells what it is.  Source: ZeroMQ RFC 15, 23 and 37.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local protocol = host.load("protocols/lib/declare")({
    name = "unixsock.zmtp", title = "ZeroMQ on Unix Sockets",
    paths = {
        "*zmtp*", "*zmq*",
    },
    stream = {
        "^\255\0\0\0\0\0\0\0[\1\2]\127",
    },
    greeting = "\255\0\0\0\0\0\0\0",
})

local glance, printable = host.load("util/text").glance, host.load("util/text").printable
local framing = host.load("protocols/lib/framing")

-- Called as in Wireshark's own dissector, which 4.4 brought.
local F = {
    signature = ProtoField.bytes("zmtp.signature", "Signature"),
    major = ProtoField.uint8("zmtp.version.major", "Major version"),
    minor = ProtoField.uint8("zmtp.version.minor", "Minor version"),
    mechanism = ProtoField.string("zmtp.mechanism", "Mechanism"),
    as_server = ProtoField.bool("zmtp.as-server", "As server"),
    socket_type = ProtoField.uint8("zmtp.socket_type", "Socket type"),
    flags = ProtoField.uint8("zmtp.flags", "Flags", base.HEX),
    command_flag = ProtoField.uint8("zmtp.flags.command", "Command", base.HEX, nil, 0x4),
    long = ProtoField.uint8("zmtp.flags.long", "Long", base.HEX, nil, 0x2),
    more = ProtoField.uint8("zmtp.flags.more", "More parts follow", base.HEX, nil, 0x1),
    length = ProtoField.uint64("zmtp.length", "Length"),
    command = ProtoField.string("zmtp.command-name", "Command"),
    name = ProtoField.string("zmtp.metadata.key", "Property"),
    value = ProtoField.string("zmtp.metadata.value", "Value"),
    reason = ProtoField.string("zmtp.reason", "Reason"),
    topic = ProtoField.string("zmtp.topic", "Topic"),
    ttl = ProtoField.uint16("zmtp.ping.ttl", "Time to live (1/10 s)"),
    data = ProtoField.bytes("zmtp.data", "Data"),
}
local proto = framing.proto(protocol, F)

local SIGNATURE, GREETING, OLD_GREETING = 10, 64, 12
local LONG = 2

local function scan(text, from, last)
    local left = last - from
    if left < 1 then return nil, from end
    local flags = text:byte(from + 1)
    if flags == 0xff then
        if left <= SIGNATURE then return nil, from end
        return from + (text:byte(from + SIGNATURE + 1) >= 3 and GREETING or OLD_GREETING)
    elseif flags > 7 then
        return false
    end
    local long = math.floor(flags / LONG) % 2 == 1
    if left < (long and 9 or 2) then return nil, from end
    if not long then return from + 2 + text:byte(from + 2) end
    local high, low = Struct.unpack(">I4I4", text, from + 2)
    return high == 0 and low <= framing.MAX and from + 9 + low
end

local function show_greeting(t, message)
    t:add(F.signature, message:range(0, SIGNATURE))
    local major = message:range(SIGNATURE, 1):uint()
    t:add(F.major, message:range(SIGNATURE, 1))
    if message:len() < GREETING then
        if message:len() >= OLD_GREETING then t:add(F.socket_type, message:range(SIGNATURE + 1, 1)) end
        return ("Greeting %d.0"):format(major == 1 and 2 or major)
    end
    local minor = message:range(11, 1):uint()
    t:add(F.minor, message:range(11, 1))
    local mechanism = printable(message:raw(12, 20):match("^[^%z]*"))
    t:add(F.mechanism, message:range(12, 20), mechanism)
    t:add(F.as_server, message:range(32, 1))
    return ("Greeting %d.%d %s"):format(major, minor, mechanism)
end

-- A command's properties: u8 and name, u32 and value.  Gives the socket's type if it is among them.
local function show_properties(t, body, at)
    local socket_type
    while at < body:len() do
        local name_len = body:range(at, 1):uint()
        local value_at = at + 1 + name_len + 4
        if name_len == 0 or value_at > body:len() then break end
        local value_len = body:range(value_at - 4, 4):uint()
        if value_at + value_len > body:len() then break end
        local name = printable(body:raw(at + 1, name_len))
        local value = value_len > 0 and printable(body:raw(value_at, value_len)) or ""
        t:add(F.name, body:range(at + 1, name_len), name)
        if value_len > 0 then t:add(F.value, body:range(value_at, value_len), value) end
        if name == "Socket-Type" then socket_type = value end
        at = value_at + value_len
    end
    return socket_type
end

local function show_command(t, body)
    local name_len = body:len() > 0 and body:range(0, 1):uint() or 0
    if name_len == 0 or 1 + name_len > body:len() then return "command" end
    local name, at = printable(body:raw(1, name_len)), 1 + name_len
    local left = body:len() - at
    t:add(F.command, body:range(1, name_len), name)
    local extra
    if name == "READY" or name == "INITIATE" then
        extra = show_properties(t, body, at)
    elseif name == "ERROR" and left > 1 then
        extra = printable(body:raw(at + 1, left - 1))
        t:add(F.reason, body:range(at + 1, left - 1), extra)
    elseif (name == "SUBSCRIBE" or name == "CANCEL") and left > 0 then
        extra = printable(body:raw(at, left))
        t:add(F.topic, body:range(at, left), extra)
    elseif left > 0 then
        if name == "PING" and left >= 2 then t:add(F.ttl, body:range(at, 2)) end
        t:add(F.data, body:range(at, left))
    end
    return extra and name .. " " .. extra or name
end

local function show(message, pinfo, tree)
    local whole = message:len()
    local t = tree:add(proto, message:range(0, whole))
    local flags = message:range(0, 1):uint()
    local info
    if flags == 0xff then
        info = whole > SIGNATURE and show_greeting(t, message) or "Greeting"
    else
        local head = math.floor(flags / LONG) % 2 == 1 and 9 or 2
        local bits = t:add(F.flags, message:range(0, 1))
        for _, flag in ipairs({ F.command_flag, F.long, F.more }) do bits:add(flag, message:range(0, 1)) end
        if whole < head then return end
        t:add(F.length, message:range(1, head - 1))
        local body = whole > head and message:range(head):tvb()
        if flags >= 4 then
            info = body and show_command(t, body) or "command"
        else
            info = flags % 2 == 1 and "Message part" or "Message"
            info = ("%s, %d bytes"):format(info, whole - head)
            if body then
                t:add(F.data, body:range(0, body:len()))
                info = info .. "  " .. glance(body:raw(), 1, body:len())
            end
        end
    end
    t:append_text(", " .. info)
    framing.info(pinfo, "ZMTP", info)
end

protocol.proto = framing.dissector(proto, scan, show)
return protocol
