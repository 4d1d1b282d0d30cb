-- i3's and sway's IPC: "i3-ipc", u32 length, u32 type in the machine's byte order (read as little-endian), then JSON or
-- commands.  Source: i3, IPC interface; sway-ipc(7).
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local protocol = host.load("protocols/lib/declare")({
    name = "unixsock.i3_ipc", title = "i3 and sway IPC",
    paths = {
        "*/i3/ipc*", "*/sway-ipc.*",
    },
    stream = {
        "^i3%-ipc",
    },
    greeting = "i3-ipc",
})

local printable = host.load("util/text").printable
local exchanges = host.load("dispatch/exchanges")
local framing = host.load("protocols/lib/framing")
local EVENT = 0x80000000
local TYPES = {
    [0] = "RUN_COMMAND", "GET_WORKSPACES", "SUBSCRIBE", "GET_OUTPUTS", "GET_TREE", "GET_MARKS", "GET_BAR_CONFIG",
    "GET_VERSION", "GET_BINDING_MODES", "GET_CONFIG", "SEND_TICK", "SYNC", "GET_BINDING_STATE",
    [100] = "GET_INPUTS", [101] = "GET_SEATS",
    [EVENT] = "event workspace", [EVENT + 1] = "event output", [EVENT + 2] = "event mode",
    [EVENT + 3] = "event window", [EVENT + 4] = "event barconfig_update", [EVENT + 5] = "event binding",
    [EVENT + 6] = "event shutdown", [EVENT + 7] = "event tick", [EVENT + 20] = "event bar_state_update",
    [EVENT + 21] = "event input",
}
local HEAD = 14
local F = {
    length = ProtoField.uint32("i3_ipc.length", "Length"),
    type = ProtoField.uint32("i3_ipc.type", "Type", base.HEX, TYPES),
    command = ProtoField.string("i3_ipc.command", "Command"),
}
local proto = framing.proto(protocol, F)
local json = Dissector.get("json")

local function length(text, at)
    if text:sub(at + 1, at + 6) ~= "i3-ipc" then return false end
    local size = HEAD + Struct.unpack("<I4", text, at + 7)
    return size <= framing.MAX and size
end

local function show(message, pinfo, tree)
    local t, size = tree:add(proto, message:range(0, message:len())), message:len()
    if size < HEAD then return end
    local kind = message:range(10, 4):le_uint()
    local name = TYPES[kind] or ("type 0x%x"):format(kind)
    local from_server = host.current.way.src_is_server
    local info = from_server and kind < EVENT and "reply " .. name or name
    t:add_le(F.length, message:range(6, 4))
    t:add_le(F.type, message:range(10, 4))
    local body = size > HEAD and message:raw(HEAD) or ""
    if body:find("^%s*[{%[]") then
        pcall(json.call, json, message:range(HEAD):tvb(), pinfo, t)
    elseif body ~= "" then
        local words = printable(body)
        t:add(F.command, message:range(HEAD), words)
        info = info .. " " .. words
    end
    if not from_server then
        exchanges.question("I3-IPC", name, nil, t, pinfo)
    elseif kind < EVENT then
        local failure
        if body:sub(1, 4096):find('"success"%s*:%s*false') then
            failure = body:sub(1, 4096):match('"error"%s*:%s*"([^"]*)"') or "no success"
        end
        exchanges.answer(nil, failure, t, pinfo)
    end
    t:append_text(", " .. info)
    framing.info(pinfo, "I3-IPC", info)
end

protocol.proto = framing.dissector(proto, framing.by_head(HEAD, length), show, 1)
return protocol
