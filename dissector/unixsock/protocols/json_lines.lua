-- JSON documents in a stream, one after another (QMP, guest agent, mpv): Wireshark's "json" takes one whole one.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local protocol = host.load("protocols/lib/declare")({
    name = "unixsock.json", title = "JSON Lines",
    paths = {
        "*qmp*", "*/libvirt/qemu/*/monitor.sock", "*/qga*", "*mpv*sock*", "*json*",
    },
    stream = {
        "^{\"QMP\"", "^%s*{%s*\"",
    },
    message = {
        "^{\"",
    },
})

local printable = host.load("util/text").printable
local framing = host.load("protocols/lib/framing")
local lines = host.load("protocols/lib/text_lines")
local proto = framing.proto(protocol, {})
local json = Dissector.get("json")

local function show(line, pinfo, tree)
    local text = line:raw(0, line:len())
    local first = text:find("[{%[]")
    if not first then return end
    pcall(json.call, json, line:range(first - 1):tvb(), pinfo, tree)
    local word = text:match('"execute"%s*:%s*"([^"]*)"') or text:match('"event"%s*:%s*"([^"]*)"')
        or text:match('"return"') and "return" or text:match('"method"%s*:%s*"([^"]*)"')
    framing.info(pinfo, "JSON", word and printable(word) or printable(text:sub(1, 60)))
end

protocol.proto = lines.dissector(proto, show, 2)
return protocol
