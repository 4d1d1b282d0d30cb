-- Addresses for Wireshark's own windows: sockets' for what TCP and UDP tell apart, processes' for what people read.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local attributes = host.load("util/attributes")

local M = {}
local unpack = Struct.unpack
local KEPT = 4096 -- they are dear to make; so many of each kind are kept
local sockets, socket_count, texts, text_count

function M.reset()
    sockets, socket_count, texts, text_count = {}, 0, {}, 0
end

M.reset()

-- A socket's pseudo address is this prefix and its identity (pcapng.py).  Version 0.1.0 had another prefix; the
-- file's names tell which it is, if names are shown at all.
local PREFIX, OLD_PREFIX = "fdfe:756e:6978:0:%x:%x:%x:%x", "fd75:6e69:7873:0:%x:%x:%x:%x"

-- Gives the pseudo address of the socket with the identity `sock`, eight bytes.
function M.of_socket(sock)
    local known = sockets[sock]
    if known then return known end
    if socket_count >= KEPT then sockets, socket_count = {}, 0 end
    local a, b, c, d = unpack("<I2I2I2I2", sock)
    known = Address.ipv6(OLD_PREFIX:format(d, c, b, a))
    -- As text an address is its name, if it has one.
    if tostring(known):find("^fd75:6e69:7873:") then known = Address.ipv6(PREFIX:format(d, c, b, a)) end
    sockets[sock], socket_count = known, socket_count + 1
    return known
end

-- Lua makes no addresses that are text, but copies those that others have made, and the dissector of Android's log
-- makes the tag of a line one.
local get_src, set_src = attributes.getter("Pinfo", "src"), attributes.setter("Pinfo", "src")
local get_dst, set_dst = attributes.getter("Pinfo", "dst"), attributes.setter("Pinfo", "dst")
local android = Dissector.get("logcat_text_brief")
local make = android and android.call

-- Up to 4.2 Wireshark strikes a dissector that has shown nothing from the packet's layers; then a heuristic one that
-- has refused, with all that it has called.
local has_lists, new_list = pcall(function() return DissectorTable.heuristic_new end)
if android and has_lists and new_list then
    local NAME = "unixsock.address"
    local maker = Proto("unixsock_address", "Unix Domain Socket Address")
    new_list(NAME, maker)
    maker:register_heuristic(NAME, function(tvb, pinfo, tree)
        android:call(tvb, pinfo, tree)
        return false
    end)
    make = function(_, tvb, pinfo, tree) DissectorTable.try_heuristics(NAME, tvb, pinfo, tree) end
end

-- Gives an address that reads `text`, or nil or false where none can be made; needs any packet's `pinfo`, and a `tree`
-- for fields that are not shown.
function M.of_text(text, pinfo, tree)
    local known = texts[text]
    if known ~= nil then return known end
    if not make or tree.visible then return nil end
    if text_count >= KEPT then texts, text_count = {}, 0 end
    local src, dst = get_src(pinfo), get_dst(pinfo)
    pcall(make, android, ByteArray.new("I/" .. text .. "(0): -", true):tvb("Name"), pinfo, tree)
    local made = get_src(pinfo)
    set_src(pinfo, src)
    set_dst(pinfo, dst)
    known = tostring(made) == text and made
    texts[text], text_count = known, text_count + 1
    return known
end

return M
