-- Loads the protocols of protocols/list.lua, and finds dissectors by name.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local M = {}

-- Not found by name in every version: where they are registered instead.
local BY_TCP_PORT = { x11 = 6000, ["9p"] = 564, vnc = 5900, memcache = 11211, mongo = 27017 }

-- Declarations (protocols/lib/declare.lua) in the list's order; by name, sentences on those that do not work; and one
-- on a file that does not even declare its name, or nil.
M.protocols, M.wrong, M.wrong_file = {}, {}, nil

local own, found = {}, {}

local function by_port(port)
    local ok, dissector = pcall(function() return DissectorTable.get("tcp.port"):get_dissector(port) end)
    return ok and dissector or nil
end

-- The dissector called `name`, or nil if this Wireshark has none.
function M.get(name)
    if found[name] ~= nil then return found[name] or nil end
    local lower = name:lower()
    local dissector = own[lower] or Dissector.get(lower) or Dissector.get(name)
    if not dissector and BY_TCP_PORT[lower] then dissector = by_port(BY_TCP_PORT[lower]) end
    found[name] = dissector or false
    return dissector
end

-- What is wrong with the protocol that a file has given, or nil.
local function check(protocol)
    local name = type(protocol) == "table" and protocol.name
    if type(name) ~= "string" or not name:find("^unixsock%.[%l%d_]+$") then
        return "it does not return a declaration with the name unixsock.NAME"
    elseif not protocol.proto then
        return "it sets no 'proto'"
    elseif own[name] then
        return "another file has the same name"
    end
end

local printable = host.load("util/text").printable

-- Loads a file.  It may fail: a newer Wireshark may use a field's name for something else, and then knows the protocol
-- itself; or it has a mistake.  The others work all the same, and the user is told.
local function load_protocol(file)
    host.declared = nil
    local ok, protocol = pcall(host.load, "protocols/" .. file)
    local wrong = not ok and tostring(protocol) or check(protocol)
    if wrong then
        protocol = host.declared
        wrong = ("protocols/%s.lua does not work: %s"):format(file, printable(wrong:gsub("\n.*", "")))
        io.stderr:write("unixsock: " .. wrong .. "\n")
        if not protocol or check(protocol) ~= "it sets no 'proto'" then
            M.wrong_file = wrong
            return
        end
        M.wrong[protocol.name] = wrong
    end
    M.protocols[#M.protocols + 1] = protocol
    own[protocol.name] = Dissector.get(wrong and protocol.name:gsub("^unixsock%.", "") or protocol.proto.name:lower())
end

-- All are loaded when Wireshark starts: protocols must exist before the first packet.
for _, file in ipairs(host.load("protocols/list")) do load_protocol(file) end
M.any_wrong = M.wrong_file ~= nil or next(M.wrong) ~= nil

return M
