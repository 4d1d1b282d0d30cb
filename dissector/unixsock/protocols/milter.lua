-- The mail filter protocol: u32 length (big-endian), a command letter, data.  Source: Sendmail's milter protocol
-- as libmilter's mfdef.h names it.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local protocol = host.load("protocols/lib/declare")({
    name = "unixsock.milter", title = "Mail Filter",
    paths = {
        "*milter*", "*/opendkim*.sock",
    },
    stream = { -- OPTNEG
        "^\0\0\0[\13\17]O\0\0\0[\2-\6]",
    },
})

local printable = host.load("util/text").printable
local framing = host.load("protocols/lib/framing")
-- The same letter is another command in the other direction.
local TO_FILTER = {
    A = "ABORT", B = "BODY", C = "CONNECT", D = "MACRO", E = "BODYEOB", H = "HELO", K = "QUIT_NC", L = "HEADER",
    M = "MAIL", N = "EOH", O = "OPTNEG", Q = "QUIT", R = "RCPT", T = "DATA", U = "UNKNOWN",
}
local FROM_FILTER = {
    ["+"] = "ADDRCPT", ["-"] = "DELRCPT", ["2"] = "ADDRCPT_PAR", ["4"] = "SHUTDOWN", a = "ACCEPT", b = "REPLBODY",
    c = "CONTINUE", d = "DISCARD", e = "CHGFROM", f = "CONN_FAIL", h = "ADDHEADER", i = "INSHEADER",
    l = "SETSYMLIST", m = "CHGHEADER", O = "OPTNEG", p = "PROGRESS", q = "QUARANTINE", r = "REJECT", s = "SKIP",
    t = "TEMPFAIL", y = "REPLYCODE",
}
local F = {
    length = ProtoField.uint32("milter.length", "Length"),
    command = ProtoField.string("milter.command", "Command"),
    data = ProtoField.bytes("milter.data", "Data"),
    text = ProtoField.string("milter.text", "Text"),
}
local proto = framing.proto(protocol, F)

local function length(text, at)
    local size = Struct.unpack(">I4", text, at + 1)
    return size >= 1 and size <= 16777216 and size + 4 or false
end

local function show(message, pinfo, tree)
    local t = tree:add(proto, message:range(0, message:len()))
    if message:len() < 5 then return end
    local letter = message:raw(4, 1)
    local name = TO_FILTER[letter] or FROM_FILTER[letter] or printable(letter)
    t:add(F.length, message:range(0, 4))
    t:add(F.command, message:range(4, 1), name)
    if message:len() > 5 then
        local data = message:range(5)
        t:add(F.data, data)
        t:add(F.text, data, printable((data:raw():gsub("%z", " "))))
    end
    t:append_text(", " .. name)
    framing.info(pinfo, "MILTER", name)
end

protocol.proto = framing.dissector(proto, framing.by_head(4, length), show)
return protocol
