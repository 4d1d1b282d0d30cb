-- Assuan, what GnuPG's programs speak among themselves: lines.  Source: "Developing with Assuan".
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

-- "D" lines carry data, perhaps secret, perhaps long: Info shows that they are there.
return host.load("protocols/lib/text_lines").proto("unixsock_assuan", "assuan", "Assuan", "ASSUAN",
    function(command) return command == "D" end)
