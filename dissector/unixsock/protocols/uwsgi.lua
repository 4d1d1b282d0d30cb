-- uwsgi: modifier1, u16 size (little-endian), modifier2, then variables as u16 size and bytes, name and value in
-- turn; what follows is the body, and the answer is plain HTTP.  Source: uWSGI, The uwsgi Protocol.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local protocol = host.load("protocols/lib/declare")({
    name = "unixsock.uwsgi", title = "uwsgi",
    paths = {
        "*/uwsgi*",
    },
    stream = {
        "^\0..\0[\1-\31]\0[A-Z][A-Z_]+",
    },
})

local printable = host.load("util/text").printable
local framing = host.load("protocols/lib/framing")
local F = {
    modifier1 = ProtoField.uint8("uwsgi.modifier1", "Modifier 1"),
    size = ProtoField.uint16("uwsgi.size", "Size"),
    modifier2 = ProtoField.uint8("uwsgi.modifier2", "Modifier 2"),
    name = ProtoField.string("uwsgi.name", "Name"),
    value = ProtoField.string("uwsgi.value", "Value"),
}
local proto = framing.proto(protocol, F)
local http = Dissector.get("http")

local function length(text, at)
    local low, high = text:byte(at + 2, at + 3)
    return 4 + low + high * 256
end

local function show(message, pinfo, tree)
    local t = tree:add(proto, message:range(0, message:len()))
    if message:len() < 4 then return end
    t:add(F.modifier1, message:range(0, 1))
    t:add_le(F.size, message:range(1, 2))
    t:add(F.modifier2, message:range(3, 1))
    local vars, at, name = {}, 4, nil
    while at + 2 <= message:len() do
        local size = message:range(at, 2):le_uint()
        if at + 2 + size > message:len() then break end
        local range = size > 0 and message:range(at + 2, size)
        local text = range and printable(range:raw()) or ""
        if not name then
            name = text
            if range then t:add(F.name, range, text) end
        else
            vars[name] = text
            if range then t:add(F.value, range, text):set_text(name .. ": " .. text) end
            name = nil
        end
        at = at + 2 + size
    end
    framing.info(pinfo, "UWSGI", ("%s %s"):format(vars.REQUEST_METHOD or "request", vars.REQUEST_URI or ""))
end

local requests = framing.cutter(framing.by_head(4, length), show)

function proto.dissector(tvb, pinfo, tree)
    local head = tvb:raw(0, math.min(tvb:len(), 5))
    if ("HTTP/"):sub(1, #head) == head then return http:call(tvb, pinfo, tree) end
    -- A request has modifier 0 (WSGI) or a small one; other bytes are its body.
    if head:byte() > 31 and head:byte() < 200 then return 0 end
    return requests(tvb, pinfo, tree)
end

protocol.proto = proto
return protocol
