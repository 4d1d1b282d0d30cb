-- The journal's native protocol: a datagram of fields, NAME=value lines, or NAME, u64 size and that many bytes.
-- Source: systemd, Native Journal Protocol.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local protocol = host.load("protocols/lib/declare")({
    name = "unixsock.journald", title = "systemd Journal",
    paths = {
        "*/systemd/journal/socket",
    },
    message = {
        "^[A-Z_]+=[^\n]*\n[A-Z_]+[=\n]", "^[A-Z_]+\n....\0\0\0\0",
    },
})

local printable = host.load("util/text").printable
local framing = host.load("protocols/lib/framing")
local F = {
    field = ProtoField.string("journald.field", "Field"),
    name = ProtoField.string("journald.name", "Name"),
    value = ProtoField.string("journald.value", "Value"),
    message = ProtoField.string("journald.message", "Message"),
    priority = ProtoField.string("journald.priority", "Priority"),
}
local proto = framing.proto(protocol, F)

-- Name, where the value begins and ends (both from 1, end exclusive), and where the next field begins.
local function next_field(text, at)
    local name, mark, value = text:match("^([^=\n]*)([=\n])()", at)
    if not name then return nil end
    if mark == "=" then
        local stop = text:find("\n", value, true) or #text + 1
        return name, value, stop, stop + 1
    end
    if value + 8 > #text + 1 then return nil end
    local low, high = Struct.unpack("<I4I4", text, value)
    local stop = math.min(value + 8 + low, #text + 1)
    if high > 0 then stop = #text + 1 end
    return name, value + 8, stop, stop + 1
end

function proto.dissector(tvb, pinfo, tree)
    local text = tvb:raw(0, tvb:len())
    if not text:find("^[%u%d_]+[=\n]") then return 0 end
    local t = tree:add(proto, tvb:range(0, tvb:len()))
    local at, message, count = 1, nil, 0
    while at <= #text do
        count = count + 1
        if count > framing.MOST_FIELDS then
            local first = at
            while at and at <= #text do at, count = select(4, next_field(text, at)), count + 1 end
            framing.more_fields(t, tvb, first - 1, count - framing.MOST_FIELDS - 1)
            break
        end
        local name, value, stop, following = next_field(text, at)
        if not name then break end
        local shown, bytes = printable(name), printable(text:sub(value, stop - 1))
        local item = t:add(F.field, tvb:range(at - 1, stop - at), shown .. "=" .. bytes)
        if #name > 0 then item:add(F.name, tvb:range(at - 1, #name), shown) end
        if stop > value then
            local range = tvb:range(value - 1, stop - value)
            item:add(F.value, range, bytes)
            if name == "MESSAGE" then
                item:add(F.message, range, bytes)
                message = message or bytes
            elseif name == "PRIORITY" then
                item:add(F.priority, range, bytes)
            end
        end
        at = following
    end
    framing.info(pinfo, "JOURNALD", message or "journal entry")
    return tvb:len()
end

protocol.proto = proto
return protocol
