-- The Music Player Daemon's protocol: lines.  Source: MPD, Protocol Reference.
local host = ...
if not host then return end -- run by Wireshark's own scan of its plugin folder: unixsock.lua loads this file

return host.load("lines").proto("unixsock_mpd", "mpd", "Music Player Daemon", "MPD")
