-- The Music Player Daemon's protocol: lines.  Source: MPD, Protocol Reference.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local protocol = host.load("protocols/lib/declare")({
    name = "unixsock.mpd", title = "Music Player Daemon",
    paths = {
        "*/mpd/socket", "*/mpd*sock*",
    },
    stream = {
        "^OK MPD ",
    },
})

protocol.proto = host.load("protocols/lib/text_lines").proto(protocol, "mpd", "MPD")
return protocol
