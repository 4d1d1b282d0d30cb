-- Takes a protocol's declaration: the first thing in its file, so that it is known which payloads are concerned where
-- the rest of the file does not work.
--
-- name      the dissector's name in the preference "Protocols by path": "unixsock.NAME"; the protocol is unixsock_NAME
-- title     what Wireshark calls the protocol
-- paths     globs of the sockets where it is spoken; of those that match a path, the one with most characters counts
-- stream    Lua patterns for the first bytes of a connection, and
-- message   for a datagram: only marks that random data does not carry, as a wrong guess costs more than none
-- upgrade   what an HTTP/1 connection becomes after "101 Switching Protocols", as its Upgrade header names it
-- media     media types of HTTP bodies
-- joined    a function that tells whether a record, given as text, is a chain of whole messages: for conversations
--           whose beginning was not captured
-- greeting  the first bytes of a connection, where some programs write fewer of them apart from the rest
-- proto     set by the rest of the file: the Proto
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

return function(protocol)
    host.declared = protocol
    return protocol
end
