-- What a cgroup's path tells of its processes, as unit_of and container_of in record.py.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local M = {}

local UNITS = { service = true, scope = true, socket = true, mount = true, swap = true }
local DIGITS = ("%x"):rep(64)

-- The container that one component of a path stands for, given the one above it.
local function container_in(part, above)
    local id = part:gsub("%.scope$", ""):match("^[%l-]*%-(" .. DIGITS .. ")$") or part:match("^" .. DIGITS .. "$")
        or part:match("^(" .. DIGITS .. ")%.scope$")
    if id and not id:find("%u") then return id:sub(1, 12) end
    return part:match("^lxc%.payload%.(.+)$") or above == "lxc" and part or part:match("^machine%-(.+)%.scope$")
end

-- Returns the innermost systemd unit and the innermost container, or nil where there is none.
function M.of(path)
    local unit, container, above
    for part in path:gmatch("[^/]+") do
        local ending = part:match("^.+%.(%l+)$")
        if ending and UNITS[ending] then unit = part end
        container = container_in(part, above) or container
        above = part
    end
    container = container and container:gsub("\\x(%x%x)", function(digits) return string.char(tonumber(digits, 16)) end)
    return unit, container
end

return M
