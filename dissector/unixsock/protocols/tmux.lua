-- tmux: OpenBSD's imsg, u32 type, u16 length with this head, u16 flags, u32 peer (the version), u32 pid, contents; in
-- the machine's byte order, read as little-endian.  Source: tmux, tmux-protocol.h; OpenBSD, imsg_init(3).
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local protocol = host.load("protocols/lib/declare")({
    name = "unixsock.tmux", title = "tmux",
    paths = {
        "*/tmux-*/*", "*tmux*sock*",
    },
    stream = { -- one of the IDENTIFY messages, version 8
        "^[d-p]\0\0\0[\16-\255].[\0\1][\0\128]\8\0\0\0",
    },
})

local printable = host.load("util/text").printable
local framing = host.load("protocols/lib/framing")
local TYPES = {
    [12] = "VERSION", [100] = "IDENTIFY_FLAGS", [101] = "IDENTIFY_TERM", [102] = "IDENTIFY_TTYNAME",
    [103] = "IDENTIFY_OLDCWD", [104] = "IDENTIFY_STDIN", [105] = "IDENTIFY_ENVIRON", [106] = "IDENTIFY_DONE",
    [107] = "IDENTIFY_CLIENTPID", [108] = "IDENTIFY_CWD", [109] = "IDENTIFY_FEATURES", [110] = "IDENTIFY_STDOUT",
    [111] = "IDENTIFY_LONGFLAGS", [112] = "IDENTIFY_TERMINFO", [200] = "COMMAND", [201] = "DETACH",
    [202] = "DETACHKILL", [203] = "EXIT", [204] = "EXITED", [205] = "EXITING", [206] = "LOCK", [207] = "READY",
    [208] = "RESIZE", [209] = "SHELL", [210] = "SHUTDOWN", [211] = "OLDSTDERR", [212] = "OLDSTDIN",
    [213] = "OLDSTDOUT", [214] = "SUSPEND", [215] = "UNLOCK", [216] = "WAKEUP", [217] = "EXEC", [218] = "FLAGS",
    [300] = "READ_OPEN", [301] = "READ", [302] = "READ_DONE", [303] = "WRITE_OPEN", [304] = "WRITE",
    [305] = "WRITE_READY", [306] = "WRITE_CLOSE", [307] = "READ_CANCEL",
}
local TEXTS = { [101] = true, [102] = true, [103] = true, [105] = true, [108] = true, [112] = true, [201] = true }
local COMMAND, ENVIRON, WRITE, HEAD, MAX = 200, 105, 304, 16, 16384

local F = {
    type = ProtoField.uint32("tmux.type", "Type", base.DEC, TYPES),
    length = ProtoField.uint16("tmux.length", "Length"),
    flags = ProtoField.uint16("tmux.flags", "Flags", base.HEX),
    peer = ProtoField.uint32("tmux.peer", "Peer", base.HEX),
    pid = ProtoField.uint32("tmux.pid", "Process"),
    text = ProtoField.string("tmux.text", "Text"),
    command = ProtoField.string("tmux.command", "Command"),
    data = ProtoField.bytes("tmux.data", "Data"),
}
local proto = framing.proto(protocol, F)

local function length(text, at)
    local size = Struct.unpack("<I2", text, at + 5)
    return size >= HEAD and size <= MAX and size
end

local function show(message, pinfo, tree)
    local t, size = tree:add(proto, message:range(0, message:len())), message:len()
    if size < HEAD then return end
    local kind = message:range(0, 4):le_uint()
    local info = TYPES[kind] or ("type %d"):format(kind)
    t:add_le(F.type, message:range(0, 4))
    t:add_le(F.length, message:range(4, 2))
    t:add_le(F.flags, message:range(6, 2))
    t:add_le(F.peer, message:range(8, 4))
    t:add_le(F.pid, message:range(12, 4))
    if kind == COMMAND and size > HEAD + 4 then -- a count, and so many words that end with a NUL
        local words = printable((message:raw(HEAD + 4):gsub("%z$", ""):gsub("%z", " ")))
        t:add(F.command, message:range(HEAD + 4), words)
        info = info .. " " .. words
    elseif kind == WRITE and size > HEAD + 4 then -- a number of a stream, and what is written
        local words = printable(message:raw(HEAD + 4))
        t:add(F.text, message:range(HEAD + 4), words)
        info = info .. " " .. words:sub(1, 64)
    elseif TEXTS[kind] and size > HEAD then
        local words = printable(message:raw(HEAD):match("^[^%z]*"))
        t:add(F.text, message:range(HEAD), words)
        if kind ~= ENVIRON then info = info .. " " .. words end -- which may have secrets
    elseif size > HEAD then
        t:add(F.data, message:range(HEAD))
    end
    t:append_text(", " .. info)
    framing.info(pinfo, "TMUX", info)
end

protocol.proto = framing.dissector(proto, framing.by_head(HEAD, length), show)
return protocol
