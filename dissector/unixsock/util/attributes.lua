-- The attributes of Wireshark's objects as functions.  `pinfo.src = address` looks for the function behind the
-- attribute anew each time, by name and in several tables; that takes longer than the function itself.
-- Where a Wireshark keeps these functions elsewhere, ours do the same in the usual way.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local M = {}
local classes = debug.getregistry and debug.getregistry() or {}

local function find(class, kind, name)
    local functions = type(classes[class]) == "table" and rawget(classes[class], kind)
    local found = type(functions) == "table" and rawget(functions, name)
    return type(found) == "function" and found or nil
end

-- get(object) gives object.name
function M.getter(class, name)
    return find(class, "__getters", name) or function(object) return object[name] end
end

-- set(object, value) is object.name = value
function M.setter(class, name)
    return find(class, "__setters", name) or function(object, value) object[name] = value end
end

return M
