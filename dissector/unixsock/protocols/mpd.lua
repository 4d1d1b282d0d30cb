-- The Music Player Daemon's protocol: lines.  Source: MPD, Protocol Reference.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

return host.load("protocols/lib/text_lines").proto("unixsock_mpd", "mpd", "Music Player Daemon", "MPD")
