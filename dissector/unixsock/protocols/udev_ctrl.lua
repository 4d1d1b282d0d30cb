-- udev's control socket: char[16] version, u32 magic, u32 type, then a number or a text; in the machine's byte order,
-- read as little-endian.  Source: systemd, src/udev/udev-ctrl.c.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local protocol = host.load("protocols/lib/declare")({
    name = "unixsock.udev_ctrl", title = "udev Control",
    paths = {
        "*/udev/control",
    },
    stream = { -- a seqpacket's messages are looked for among these
        "^udev%-%d+[^\n]*\234\29\173\222",
    },
})

local printable = host.load("util/text").printable
local framing = host.load("protocols/lib/framing")
local TYPES = {
    [0] = "END_MESSAGES", "SET_LOG_LEVEL", "STOP_EXEC_QUEUE", "START_EXEC_QUEUE", "RELOAD", "SET_ENV",
    "SET_CHILDREN_MAX", "PING", "EXIT",
}
local SET_LOG_LEVEL, SET_ENV, SET_CHILDREN_MAX = 1, 5, 6
local VERSION, HEAD, MAGIC = 16, 24, 0xdead1dea
local WHOLE = HEAD + 256

local F = {
    version = ProtoField.string("udev_ctrl.version", "Version"),
    type = ProtoField.uint32("udev_ctrl.type", "Type", base.DEC, TYPES),
    number = ProtoField.int32("udev_ctrl.number", "Number"),
    text = ProtoField.string("udev_ctrl.text", "Text"),
}
local proto = framing.proto(protocol, F)

local function length(text, at)
    return Struct.unpack("<I4", text, at + VERSION + 1) == MAGIC and WHOLE
end

local function show(message, pinfo, tree)
    local size = message:len()
    local t = tree:add(proto, message:range(0, size))
    if size < HEAD then return end
    local kind = message:range(20, 4):le_uint()
    local info = TYPES[kind] or ("type %d"):format(kind)
    t:add(F.version, message:range(0, VERSION), printable(message:raw(0, VERSION):match("^[^%z]*")))
    t:add_le(F.type, message:range(20, 4))
    if (kind == SET_LOG_LEVEL or kind == SET_CHILDREN_MAX) and size >= HEAD + 4 then
        t:add_le(F.number, message:range(HEAD, 4))
        info = ("%s %d"):format(info, message:range(HEAD, 4):le_int())
    elseif kind == SET_ENV and size > HEAD then
        local words = printable(message:raw(HEAD):match("^[^%z]*"))
        t:add(F.text, message:range(HEAD), words)
        info = info .. " " .. words
    end
    t:append_text(", " .. info)
    framing.info(pinfo, "UDEV", info)
end

protocol.proto = framing.dissector(proto, framing.by_head(HEAD, length), show)
return protocol
