-- ttrpc, containerd's gRPC without HTTP/2: u32 length, u32 stream (big-endian), u8 type, u8 flags, then protobuf.
-- Source: containerd/ttrpc, PROTOCOL.md.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local protocol = host.load("protocols/lib/declare")({
    name = "unixsock.ttrpc", title = "ttrpc",
    paths = {
        "*/containerd.sock.ttrpc", "*/containerd/s/*",
    },
    stream = {
        "^\0\0..\0\0\0[\1-\9]\1[\0-\3]\10",
    },
})

local printable = host.load("util/text").printable
local exchanges = host.load("dispatch/exchanges")
local framing = host.load("protocols/lib/framing")
local TYPES = { [1] = "Request", [2] = "Response", [3] = "Data" }
local F = {
    length = ProtoField.uint32("ttrpc.length", "Length"),
    stream = ProtoField.uint32("ttrpc.stream", "Stream"),
    type = ProtoField.uint8("ttrpc.type", "Type", base.DEC, TYPES),
    flags = ProtoField.uint8("ttrpc.flags", "Flags", base.HEX),
    service = ProtoField.string("ttrpc.service", "Service"),
    method = ProtoField.string("ttrpc.method", "Method"),
    data = ProtoField.bytes("ttrpc.data", "Data"),
}
local proto = framing.proto(protocol, F)

local function length(text, at)
    local size, kind = Struct.unpack(">I4", text, at + 1), text:byte(at + 9)
    return size <= 4194304 and TYPES[kind] and size + 10 or false
end

-- The short protobuf string with field number `number` at `at`, or nil.
local function short_string(message, at, number)
    if at + 2 > message:len() or message:range(at, 1):uint() ~= number * 8 + 2 then return nil end
    local size = message:range(at + 1, 1):uint()
    if size == 0 or size > 127 or at + 2 + size > message:len() then return nil end
    return message:range(at + 2, size), at + 2 + size
end

-- What a Response says of an error: its field 1 is a google.rpc.Status, with a code (1) and a message (2).
local function failure_of(message)
    local text = message:raw(10, math.min(message:len() - 10, 256))
    local code, after = text:match("^\10.\8([\1-\127])()")
    if not code then return nil end
    local size = text:match("^\18(.)", after)
    local words = size and size:byte() < 128 and text:sub(after + 2, after + 1 + size:byte()) or ""
    return ("code %d %s"):format(code:byte(), words)
end

local function show(message, pinfo, tree)
    local t = tree:add(proto, message:range(0, message:len()))
    if message:len() < 10 then return end
    local kind = message:range(8, 1):uint()
    t:add(F.length, message:range(0, 4))
    t:add(F.stream, message:range(4, 4))
    t:add(F.type, message:range(8, 1))
    t:add(F.flags, message:range(9, 1))
    local stream = message:range(4, 4):uint()
    local info = ("%s, stream %d"):format(TYPES[kind] or "frame", stream)
    if kind == 2 then
        exchanges.answer(stream, message:len() > 10 and failure_of(message) or nil, t, pinfo)
    elseif kind == 1 then
        local service, at = short_string(message, 10, 1)
        local method = service and short_string(message, at, 2)
        if method then
            t:add(F.service, service, printable(service:raw()))
            t:add(F.method, method, printable(method:raw()))
            info = ("%s %s/%s"):format(info, printable(service:raw()), printable(method:raw()))
        end
        exchanges.question("ttrpc", method and service:raw() .. "/" .. method:raw(), stream, t, pinfo)
    end
    if message:len() > 10 then t:add(F.data, message:range(10)) end
    framing.info(pinfo, "TTRPC", info)
end

protocol.proto = framing.dissector(proto, framing.by_head(10, length), show, 0)
return protocol
