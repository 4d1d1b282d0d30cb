-- Output of a container's process as Docker and Podman pass it on: u8 stream (0 stdin, 1 stdout, 2 stderr), three
-- NULs, u32 length (big-endian), bytes.  HTTP comes before: 101 UPGRADED or an answer of this media type.  What a
-- client writes, and all with a terminal, comes as it is.  Source: Docker Engine API, "Attach to a container".
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local protocol = host.load("protocols/lib/declare")({
    name = "unixsock.docker_stream", title = "Container Output",
    upgrade = { "tcp" },
    media = { "application/vnd.docker.multiplexed-stream", "application/vnd.docker.raw-stream" },
})

local glance, printable = host.load("util/text").glance, host.load("util/text").printable
local framing = host.load("protocols/lib/framing")
local STREAMS = { [0] = "stdin", "stdout", "stderr", "systemerr" }
local HEAD = 8
local F = {
    stream = ProtoField.uint8("docker_stream.stream", "Stream", base.DEC, STREAMS),
    length = ProtoField.uint32("docker_stream.length", "Length"),
    stdout = ProtoField.string("docker_stream.stdout", "Standard output"),
    stderr = ProtoField.string("docker_stream.stderr", "Standard error"),
    stdin = ProtoField.string("docker_stream.stdin", "Standard input"),
    raw = ProtoField.string("docker_stream.raw", "Terminal"),
}
local TEXT = { [0] = F.stdin, F.stdout, F.stderr, F.stderr }
local proto = framing.proto(protocol, F)

local function length(text, at)
    local stream, a, b, c = text:byte(at + 1, at + 4)
    if stream > 3 or a + b + c > 0 then return false end
    return HEAD + Struct.unpack(">I4", text, at + 5)
end

local function show(message, pinfo, tree)
    local t, size = tree:add(proto, message:range(0, message:len())), message:len()
    if size < HEAD then return end
    local stream = message:range(0, 1):uint()
    t:add(F.stream, message:range(0, 1))
    t:add(F.length, message:range(4, 4))
    local info = STREAMS[stream] or "stream"
    if size > HEAD then
        local bytes = message:raw(HEAD)
        t:add(TEXT[stream] or F.stdout, message:range(HEAD), printable(bytes))
        info = info .. ": " .. glance(bytes, 1, #bytes)
    end
    t:append_text(", " .. info)
    framing.info(pinfo, "CONTAINER", info)
end

local frames = framing.cutter(framing.by_head(HEAD, length), show)

function proto.dissector(tvb, pinfo, tree)
    local size = tvb:len()
    if size == 0 then return 0 end
    local bytes = tvb:raw(0, size)
    local head = bytes:sub(1, 4)
    local from_client = not host.current.way.src_is_server
    if not from_client and head:find("^[\0-\3]%z?%z?%z?$") then return frames(tvb, pinfo, tree) end
    local field = from_client and F.stdin or F.raw
    tree:add(proto, tvb:range(0, size)):add(field, tvb:range(0, size), printable(bytes))
    framing.info(pinfo, "CONTAINER", (from_client and "stdin: " or "terminal: ") .. glance(bytes, 1, size))
    return size
end

protocol.proto = proto
return protocol
