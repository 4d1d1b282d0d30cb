-- Wayland: u32 object, u16 opcode, u16 size in the machine's byte order (read as little-endian), then arguments.
-- Object 1 is always the display; other objects' interfaces are only known to those who saw them made.
-- Source: The Wayland Protocol, Wire Format.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local framer = host.load("framer")
local REQUESTS = { [0] = "sync", "get_registry" }
local EVENTS = { [0] = "error", "delete_id" }
local F = {
    object = ProtoField.uint32("wayland.object", "Object"),
    opcode = ProtoField.uint16("wayland.opcode", "Opcode"),
    size = ProtoField.uint16("wayland.size", "Size"),
    message = ProtoField.string("wayland.message", "Message"),
    global = ProtoField.string("wayland.interface", "Interface"),
    args = ProtoField.bytes("wayland.args", "Arguments"),
}
local proto = framer.proto("unixsock_wayland", "Wayland", F)

local function length(tvb, at)
    if tvb:len() - at < 8 then return nil end
    local size = tvb:range(at + 6, 2):le_uint()
    return size >= 8 and size % 4 == 0 and size
end

-- wl_registry.global and .bind carry an interface's name: u32 name, then u32 size, text and NUL.
local function interface_name(message)
    if message:len() < 20 then return nil end
    local size = message:range(12, 4):le_uint()
    if size < 4 or 16 + size > message:len() then return nil end
    local name = message:raw(16, size - 1)
    return name:find("^%l[%w_]+_[%w_]+$") and name, message:range(16, size - 1)
end

local function show(message, pinfo, tree)
    local t = tree:add(proto, message:range(0, message:len()))
    if message:len() < 8 then return end
    local object, opcode = message:range(0, 4):le_uint(), message:range(4, 2):le_uint()
    t:add_le(F.object, message:range(0, 4))
    t:add_le(F.opcode, message:range(4, 2))
    t:add_le(F.size, message:range(6, 2))
    local request = not host.current.way.src_is_server
    local name = object == 1 and (request and REQUESTS or EVENTS)[opcode]
    local text = name and "wl_display." .. name
        or ("object %d %s %d"):format(object, request and "request" or "event", opcode)
    local interface, range = interface_name(message)
    if opcode == 0 and interface then
        text = (request and "wl_registry.bind " or "wl_registry.global ") .. interface
        t:add(F.global, range, interface)
    end
    t:add(F.message, message:range(0, 8), text)
    if message:len() > 8 then t:add(F.args, message:range(8)) end
    t:append_text(", " .. text)
    framer.info(pinfo, "WAYLAND", text)
end

return framer.dissector(proto, length, show)
