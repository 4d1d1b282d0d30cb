-- Loads the protocols of protocols/list.lua, and finds dissectors by name.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local M = {}

-- Display filter names of dissectors that are found by port only, where the name that Lua shows for them is another.
local SHOWN_AS = {
    s5066sis = "stanag 5066 sis", slsk = "soulseek", tpm = "tpm2.0", dpp = "wi-fi dpp", gsm_ipa = "gsm over ip",
    kerberos = "krb5", ajns = "alljoyn ns", gdsdb = "fb/ib gds db", tacplus = "tacacs+", winsrepl = "wins-replication",
    omron = "omron fins", ardp = "alljoyn ardp", ts2 = "teamspeak2", capwap = "capwap-control", dnp3 = "dnp 3.0",
    vrt = "vita 49", bfd = "bfd control", iec60870_104 = "iec 60870-5-104", hzlcst = "hazelcast", ipdr = "ipdr/sp",
    kf = "kingfisher", kip = "knx/ip", nbdgm = "nbds",
}

-- Declarations (protocols/lib/declare.lua) in the list's order; by name, sentences on those that do not work; and one
-- on a file that does not even declare its name, or nil.
M.protocols, M.wrong, M.wrong_file = {}, {}, nil

local own, found = {}, {}

-- The dissector at a transport port ("tcp" or "udp"), or nil.
local function at_port(transport, port)
    local ok, dissector = pcall(function() return DissectorTable.get(transport .. ".port"):get_dissector(port) end)
    return ok and dissector or nil
end

local LAST_PORT = 65535
local by_shown_name -- dissectors at TCP's and UDP's ports, by the name that is shown for them, in lower case

-- Many dissectors of Wireshark's are registered at a port only, and Dissector.get() knows nothing of them.
local function at_any_port(name)
    if not by_shown_name then
        by_shown_name = {}
        for _, transport in ipairs({ "tcp", "udp" }) do
            for port = 0, LAST_PORT do
                local dissector = at_port(transport, port)
                local shown = dissector and tostring(dissector):lower()
                if shown and not by_shown_name[shown] then by_shown_name[shown] = dissector end
            end
        end
    end
    return by_shown_name[name] or by_shown_name[SHOWN_AS[name]]
end

-- The dissector called `name`, or nil if this Wireshark has none: its name, its display filter name, or the transport
-- port where it is registered, as tcp/10809.
function M.get(name)
    if found[name] ~= nil then return found[name] or nil end
    local lower = name:lower()
    local transport, port = lower:match("^([tu][cd]p)/(%d+)$")
    local dissector
    if transport then
        dissector = #port <= 5 and tonumber(port) <= LAST_PORT and at_port(transport, tonumber(port))
    else
        dissector = own[lower] or Dissector.get(lower) or Dissector.get(name) or at_any_port(lower)
    end
    found[name] = dissector or false
    return dissector or nil
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
-- itself; or it has a mistake.  The others still work, and the user sees the error.
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

-- Where Wireshark looks for them, besides our ports: Decode As, and what HTTP hands over.
local function register(protocol)
    DissectorTable.get("tcp.port"):add_for_decode_as(protocol.proto)
    for _, name in ipairs(protocol.upgrade or {}) do DissectorTable.get("http.upgrade"):add(name, protocol.proto) end
    for _, name in ipairs(protocol.media or {}) do DissectorTable.get("media_type"):add(name, protocol.proto) end
end

for _, protocol in ipairs(M.protocols) do
    if protocol.proto then pcall(register, protocol) end
end
M.any_wrong = M.wrong_file ~= nil or next(M.wrong) ~= nil

return M
