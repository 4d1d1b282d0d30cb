-- Assuan, what GnuPG's programs speak among themselves: lines.  Source: "Developing with Assuan".
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local protocol = host.load("protocols/lib/declare")({
    name = "unixsock.assuan", title = "Assuan",
    paths = {
        "*/S.*",
    },
    stream = {
        "^OK Pleased to meet you",
    },
    greeting = "OK Pleased to meet",
})

-- "D" lines carry data, perhaps secret, perhaps long: Info shows that they are there.
protocol.proto = host.load("protocols/lib/text_lines").proto(protocol, "assuan", "ASSUAN",
    function(command) return command == "D" end)
return protocol
