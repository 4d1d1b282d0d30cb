-- PipeWire's native protocol: u32 object, u32 opcode (high byte) and size, u32 seq, u32 n_fds, then a POD;
-- in the machine's byte order, read as little-endian.  Source: PipeWire, Native Protocol.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local protocol = host.load("protocols/lib/declare")({
    name = "unixsock.pipewire", title = "PipeWire Native Protocol",
    paths = {
        "*/pipewire-*",
    },
    stream = { -- Core.Hello
        "^\0\0\0\0[\8-\64]\0\0\1\0\0\0\0\0\0\0\0",
    },
})

local framing = host.load("protocols/lib/framing")
-- Objects 0 and 1 are fixed: the core and the client.
local CORE_METHODS = { "Hello", "Sync", "Pong", "Error", "GetRegistry", "CreateObject", "Destroy" }
local CORE_EVENTS = {
    [0] = "Info", "Done", "Ping", "Error", "RemoveId", "BoundId", "AddMem", "RemoveMem", "BoundProps",
}
local F = {
    id = ProtoField.uint32("pipewire.id", "Object"),
    opcode = ProtoField.uint8("pipewire.opcode", "Opcode"),
    method = ProtoField.string("pipewire.method", "Method or event"),
    size = ProtoField.uint24("pipewire.size", "Size"),
    seq = ProtoField.uint32("pipewire.seq", "Sequence number"),
    fds = ProtoField.uint32("pipewire.fds", "Descriptors"),
    pod = ProtoField.bytes("pipewire.pod", "Arguments"),
}
local proto = framing.proto(protocol, F)

local function length(text, at)
    return Struct.unpack("<I3", text, at + 5) + 16
end

local function show(message, pinfo, tree)
    local t = tree:add(proto, message:range(0, message:len()))
    if message:len() < 16 then return end
    local id, opcode = message:range(0, 4):le_uint(), message:range(7, 1):uint()
    t:add_le(F.id, message:range(0, 4))
    t:add(F.opcode, message:range(7, 1))
    t:add_le(F.size, message:range(4, 3))
    t:add_le(F.seq, message:range(8, 4))
    t:add_le(F.fds, message:range(12, 4))
    local info = ("object %d opcode %d"):format(id, opcode)
    local from_client = not host.current.way.src_is_server
    if id == 0 then
        local name = (from_client and CORE_METHODS or CORE_EVENTS)[opcode]
        if name then
            t:add(F.method, message:range(7, 1), "Core." .. name)
            info = "Core." .. name
        end
    end
    if message:len() > 16 then t:add(F.pod, message:range(16)) end
    framing.info(pinfo, "PIPEWIRE", info)
end

protocol.proto = framing.dissector(proto, framing.by_head(16, length), show)
return protocol
