-- Finds a dissector by the name that the table of paths uses.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local M = {}

-- Not found by name in every version: where they are registered instead.
local BY_TCP_PORT = { x11 = 6000, ["9p"] = 564, vnc = 5900, memcache = 11211, mongo = 27017 }
-- Our own, each in the file of its name, which gives its Proto.  All are read when Wireshark starts:
-- protocols must exist before the first packet.
local OWN = {}

local found = {}

local function by_port(port)
    local ok, dissector = pcall(function() return DissectorTable.get("tcp.port"):get_dissector(port) end)
    return ok and dissector or nil
end

-- The dissector called `name`, or nil if this Wireshark has none.
function M.get(name)
    if found[name] ~= nil then return found[name] or nil end
    local lower = name:lower()
    local dissector
    if OWN[lower] then
        dissector = OWN[lower]
    else
        dissector = Dissector.get(lower) or Dissector.get(name)
        if not dissector and BY_TCP_PORT[lower] then dissector = by_port(BY_TCP_PORT[lower]) end
    end
    found[name] = dissector or false
    return dissector
end

-- Where a file's name says more than the protocol's.
local FILE = { json = "json_lines", notify = "sd_notify", assuan = "gpg_assuan", resp = "redis" }
for name in ("dbus json varlink wayland ssh_agent notify journald assuan wpa_ctrl chrony milter mpd uwsgi pulse"
    .. " pipewire ttrpc resp zmtp"):gmatch("%S+") do
    -- A newer Wireshark may use a field's name for something else: then it knows the protocol itself.
    local ok, proto = pcall(host.load, "protocols/" .. (FILE[name] or name))
    OWN["unixsock." .. name] = Dissector.get(ok and proto.name:lower() or name)
end

return M
