-- Lines of text, whatever they mean: the many control sockets that take a command in a line and answer in lines.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local protocol = host.load("protocols/lib/declare")({
    name = "unixsock.lines", title = "Lines of Text",
    paths = {
        "*/haproxy/admin*.sock", "*/haproxy*master*.sock*", "*/haproxy/stats*", "*/avahi-daemon/socket",
        "*/acpid.socket", "*/dovecot/auth*", "*/dovecot/anvil*", "*/clamav/clamd*", "*/clamd*.sock*", "*/clamd*.ctl",
        "*/frr/*.vty", "*/quagga/*.vty", "*/bird.ctl", "*/bird6.ctl", "*/lirc/lircd*", "*/gpsd.sock", "*/tor/control",
        "*/rrdcached.sock", "*/speechd.sock", "*/pulse/cli", "*openvpn*management*", "*/unbound*.ctl",
        "*/spamd*.sock", "*/postgrey/socket", "*/wireguard/*.sock", "*/nut/*",
    },
})

protocol.proto = host.load("protocols/lib/text_lines").proto(protocol, "unixsock.lines", "LINES")
return protocol
