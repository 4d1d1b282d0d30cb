-- The control interface of wpa_supplicant and hostapd: a command, reply or event in each datagram.
-- Source: wpa_supplicant, Control interface.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local protocol = host.load("protocols/lib/declare")({
    name = "unixsock.wpa_ctrl", title = "wpa_supplicant Control Interface",
    paths = {
        "*/wpa_supplicant/*", "*/hostapd/*", "*/wpa_ctrl_*", "*wpa_*global*",
    },
    message = { -- events, and commands that a client begins with
        "^<%d>CTRL%-", "^<%d>WPS%-", "^PING$", "^STATUS$", "^STATUS%-VERBOSE$", "^ATTACH$", "^DETACH$",
        "^INTERFACES$", "^LIST_NETWORKS$", "^SCAN$", "^SCAN_RESULTS$",
    },
})

local printable = host.load("util/text").printable
local framing = host.load("protocols/lib/framing")
local F = {
    command = ProtoField.string("wpa_ctrl.command", "Command"),
    args = ProtoField.string("wpa_ctrl.args", "Arguments"),
    level = ProtoField.uint8("wpa_ctrl.level", "Event level"),
    event = ProtoField.string("wpa_ctrl.event", "Event"),
    reply = ProtoField.string("wpa_ctrl.reply", "Reply"),
}
local proto = framing.proto(protocol, F)

function proto.dissector(tvb, pinfo, tree)
    local text = tvb:raw(0, tvb:len()):gsub("\n$", "")
    local t = tree:add(proto, tvb:range(0, tvb:len()))
    local shown = printable(text)
    local level, at = text:match("^<(%d)>()")
    if level then
        t:add(F.level, tvb:range(1, 1), tonumber(level))
        if at <= #text then t:add(F.event, tvb:range(at - 1, #text - at + 1), printable(text:sub(at))) end
        shown = "event " .. shown
    elseif not host.current.way.src_is_server and text:find("^[A-Z][A-Z0-9_%-]+%f[ \0]") then
        local word, rest = text:match("^(%S+) ?()")
        t:add(F.command, tvb:range(0, #word), word)
        if rest <= #text then t:add(F.args, tvb:range(rest - 1, #text - rest + 1), printable(text:sub(rest))) end
        -- These carry keys and passwords.
        if word:find("^SET_NETWORK") or word:find("^CTRL%-RSP") then shown = word end
    elseif #text > 0 then
        t:add(F.reply, tvb:range(0, #text), shown)
        shown = "reply " .. shown
    end
    framing.info(pinfo, "WPA-CTRL", shown)
    return tvb:len()
end

protocol.proto = proto
return protocol
