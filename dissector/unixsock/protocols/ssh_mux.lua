-- OpenSSH's connection sharing (ControlMaster): u32 length, u32 type, mostly u32 request, contents; big-endian.
-- Source: OpenSSH, PROTOCOL.mux.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local protocol = host.load("protocols/lib/declare")({
    name = "unixsock.ssh_mux", title = "OpenSSH Connection Sharing",
    paths = {
        "*/.ssh/cm*", "*/.ssh/control*", "*/.ssh/master*", "*/.ssh/mux*", "*/.ssh/socket*", "*/.ansible/cp/*",
        "*ssh*mux*", "*ssh*control*",
    },
    stream = { -- HELLO, version 4
        "^\0\0..\0\0\0\1\0\0\0\4",
    },
})

local printable = host.load("util/text").printable
local exchanges = host.load("dispatch/exchanges")
local framing = host.load("protocols/lib/framing")
local HELLO, NEW_SESSION, NEW_STDIO_FWD, FAILURE, EXIT_MESSAGE = 0x1, 0x10000002, 0x10000008, 0x80000003, 0x80000004
local TYPES = {
    [HELLO] = "HELLO", [NEW_SESSION] = "NEW_SESSION", [0x10000004] = "ALIVE_CHECK", [0x10000005] = "TERMINATE",
    [0x10000006] = "OPEN_FWD", [0x10000007] = "CLOSE_FWD", [NEW_STDIO_FWD] = "NEW_STDIO_FWD",
    [0x10000009] = "STOP_LISTENING", [0x1000000f] = "PROXY", [0x80000001] = "OK", [0x80000002] = "PERMISSION_DENIED",
    [FAILURE] = "FAILURE", [EXIT_MESSAGE] = "EXIT_MESSAGE", [0x80000005] = "ALIVE", [0x80000006] = "SESSION_OPENED",
    [0x80000007] = "REMOTE_PORT", [0x80000008] = "TTY_ALLOC_FAIL", [0x8000000f] = "PROXY",
}
local NO_ANSWER = { EXIT_MESSAGE = true, TTY_ALLOC_FAIL = true }
local MAX = 262144 -- bytes of a message: ssh takes no more

local F = {
    length = ProtoField.uint32("ssh_mux.length", "Length"),
    type = ProtoField.uint32("ssh_mux.type", "Type", base.HEX, TYPES),
    version = ProtoField.uint32("ssh_mux.version", "Version"),
    request = ProtoField.uint32("ssh_mux.request", "Request"),
    session = ProtoField.uint32("ssh_mux.session", "Session"),
    exit = ProtoField.uint32("ssh_mux.exit", "Exit value"),
    terminal = ProtoField.string("ssh_mux.terminal", "Terminal"),
    command = ProtoField.string("ssh_mux.command", "Command"),
    reason = ProtoField.string("ssh_mux.reason", "Reason"),
    data = ProtoField.bytes("ssh_mux.data", "Data"),
}
local proto = framing.proto(protocol, F)

-- After these a client passes descriptors, each with one byte outside of any message.
local DESCRIPTORS = { [NEW_SESSION] = 3, [NEW_STDIO_FWD] = 2 }

local function length(text, at)
    local size, kind = Struct.unpack(">I4I4", text, at + 1)
    return size >= 4 and size <= MAX and size + 4 + (DESCRIPTORS[kind] or 0) or false
end

-- Adds the string at `at`, if it is whole; gives it and where the next field begins.
local function add_string(t, field, tvb, at)
    if not at or at + 4 > tvb:len() then return nil end
    local size = tvb:range(at, 4):uint()
    if at + 4 + size > tvb:len() then return nil end
    local text = size > 0 and printable(tvb:raw(at + 4, size)) or ""
    if size > 0 then t:add(field, tvb:range(at + 4, size), text) end
    return text, at + 4 + size
end

local function show(message, pinfo, tree)
    local t, size = tree:add(proto, message:range(0, message:len())), message:len()
    if size < 8 then return end
    local kind = message:range(4, 4):uint()
    local name = TYPES[kind] or ("type 0x%08x"):format(kind)
    local info = name
    t:add(F.length, message:range(0, 4))
    t:add(F.type, message:range(4, 4))
    if size >= 12 and kind == HELLO then
        t:add(F.version, message:range(8, 4))
    elseif size >= 16 and kind == EXIT_MESSAGE then
        t:add(F.session, message:range(8, 4))
        t:add(F.exit, message:range(12, 4))
        info = ("%s %d"):format(name, message:range(12, 4):uint())
    elseif size >= 12 then
        local request = message:range(8, 4):uint()
        t:add(F.request, message:range(8, 4))
        local failure
        if kind == NEW_SESSION and size >= 16 then
            local at = 16 + message:range(12, 4):uint() + 20 -- a reserved string, five numbers
            local _, after = add_string(t, F.terminal, message, at)
            local command = add_string(t, F.command, message, after)
            if command and command ~= "" then info = name .. " " .. command end
        elseif kind >= 0x80000002 and kind <= FAILURE then
            failure = name .. " " .. (add_string(t, F.reason, message, 12) or "")
            info = failure
        elseif size > 12 then
            t:add(F.data, message:range(12))
        end
        if kind < 0x80000000 then
            exchanges.question("SSH-MUX", name, request, t, pinfo)
        elseif not NO_ANSWER[name] then
            exchanges.answer(request, failure, t, pinfo)
        end
    end
    t:append_text(", " .. info)
    framing.info(pinfo, "SSH-MUX", info)
end

protocol.proto = framing.dissector(proto, framing.by_head(8, length), show, 0)
return protocol
