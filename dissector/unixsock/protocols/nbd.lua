-- NBD, the network block device: a greeting, options and their answers, then requests and replies; big-endian.
-- Wireshark's own dissector knows the requests only, up to 4.4.  Source: NetworkBlockDevice/nbd, doc/proto.md.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local protocol = host.load("protocols/lib/declare")({
    name = "unixsock.nbd", title = "NBD on Unix Sockets",
    paths = {
        "*/nbd*", "*nbd*.sock", "*/nbdkit*",
    },
    stream = {
        "^NBDMAGICIHAVEOPT", "^NBDMAGIC\0\0\66\2\129\134\18\83", "^\37\96\149\19..\0[\0-\8]",
    },
    greeting = "NBDMAGICIHAVEOP",
})

local printable = host.load("util/text").printable
local exchanges = host.load("dispatch/exchanges")
local framing = host.load("protocols/lib/framing")
local errno = host.load("util/errno")
local COMMANDS = {
    [0] = "READ", "WRITE", "DISC", "FLUSH", "TRIM", "CACHE", "WRITE_ZEROES", "BLOCK_STATUS", "RESIZE",
}
local READ, WRITE, DISC = 0, 1, 2
local OPTIONS = {
    "EXPORT_NAME", "ABORT", "LIST", "PEEK_EXPORT", "STARTTLS", "INFO", "GO", "STRUCTURED_REPLY", "LIST_META_CONTEXT",
    "SET_META_CONTEXT", "EXTENDED_HEADERS",
}
local EXPORT_NAME, ABORT = 1, 2
local ERROR = 0x80000000
local ANSWERS = {
    "ACK", "SERVER", "INFO", "META_CONTEXT", [ERROR + 1] = "ERR_UNSUP", [ERROR + 2] = "ERR_POLICY",
    [ERROR + 3] = "ERR_INVALID", [ERROR + 4] = "ERR_PLATFORM", [ERROR + 5] = "ERR_TLS_REQD",
    [ERROR + 6] = "ERR_UNKNOWN", [ERROR + 7] = "ERR_SHUTDOWN", [ERROR + 8] = "ERR_BLOCK_SIZE_REQD",
    [ERROR + 9] = "ERR_TOO_BIG",
}
local CHUNKS = {
    [0] = "NONE", "OFFSET_DATA", "OFFSET_HOLE", [5] = "BLOCK_STATUS", [6] = "BLOCK_STATUS_EXT", [0x8001] = "ERROR",
    [0x8002] = "ERROR_OFFSET",
}

local F = {
    phase = ProtoField.string("unixsock.nbd.message", "Message"),
    flags = ProtoField.uint16("unixsock.nbd.flags", "Flags", base.HEX),
    client_flags = ProtoField.uint32("unixsock.nbd.client_flags", "Client's flags", base.HEX),
    option = ProtoField.uint32("unixsock.nbd.option", "Option", base.DEC, OPTIONS),
    answer = ProtoField.uint32("unixsock.nbd.option_reply", "Answer to an option", base.HEX, ANSWERS),
    command = ProtoField.uint16("unixsock.nbd.command", "Command", base.DEC, COMMANDS),
    chunk = ProtoField.uint16("unixsock.nbd.reply_type", "Kind of reply", base.HEX, CHUNKS),
    cookie = ProtoField.bytes("unixsock.nbd.cookie", "Cookie"),
    offset = ProtoField.uint64("unixsock.nbd.offset", "Offset"),
    length = ProtoField.uint64("unixsock.nbd.length", "Length"),
    size = ProtoField.uint64("unixsock.nbd.export_size", "Size of the export"),
    name = ProtoField.string("unixsock.nbd.name", "Name"),
    failure = ProtoField.string("unixsock.nbd.error", "Error"),
    data = ProtoField.bytes("unixsock.nbd.data", "Data"),
}
local proto = framing.proto(protocol, F)

local GREETING, OPTION, OPTION_ANSWER = "NBDMAGIC", "IHAVEOPT", "\0\3\232\137\4\85\101\169"
local REQUEST, EXTENDED_REQUEST = "\37\96\149\19", "\33\228\28\113"
local REPLY, CHUNK, EXTENDED_CHUNK = "\103\68\102\152", "\102\142\51\239", "\110\138\39\140"
local unpack = Struct.unpack

---------------------------------------------------------------------------------------------------
-- How long a message is

-- A simple reply does not tell how much it carries: the request did.  What is asked for is kept by its cookie; and of
-- each reply, by its place in the capture, how long it was, for later passes.
local MOST = 65536 -- of each, in a conversation

local function reads()
    local conversation = host.current.way.conversation
    conversation.nbd = conversation.nbd or { asked = {}, count = 0, known = {}, known_count = 0, export = false }
    return conversation.nbd
end

local function note_request(cookie, size)
    local of = reads()
    if not of.asked[cookie] then
        if size == 0 then return end -- cookies are used again: only what was a read before is to be forgotten
        if of.count >= MOST then of.asked, of.count = {}, 0 end
        of.count = of.count + 1
    end
    of.asked[cookie] = size
end

local function read_size(cookie)
    local of, place = reads(), framing.message_place()
    local size = of.known[place]
    if size then return size end
    size = of.asked[cookie] or 0
    if size > 0 and of.known_count < MOST then of.known[place], of.known_count = size, of.known_count + 1 end
    return size
end

-- By the mark that begins a message: bytes of its head, and length(text, from) of the whole.
local function head_only(size) return function() return size end end
local HEADS = {
    [REQUEST] = { 28, function(text, from)
        local kind, size = unpack(">I2", text, from + 7), unpack(">I4", text, from + 25)
        note_request(text:sub(from + 9, from + 16), kind == READ and size or 0)
        return kind == WRITE and 28 + size or 28
    end },
    [EXTENDED_REQUEST] = { 32, function(text, from)
        local kind, high, size = unpack(">I2", text, from + 7), unpack(">I4I4", text, from + 25)
        if kind ~= WRITE then return 32 end
        return high == 0 and size <= framing.MAX and 32 + size
    end },
    [REPLY] = { 16, function(text, from)
        local failed = unpack(">I4", text, from + 5) ~= 0
        return failed and 16 or 16 + read_size(text:sub(from + 9, from + 16))
    end },
    [CHUNK] = { 20, function(text, from) return 20 + unpack(">I4", text, from + 17) end },
    [EXTENDED_CHUNK] = { 32, function(text, from)
        local high, size = unpack(">I4I4", text, from + 25)
        return high == 0 and size <= framing.MAX and 32 + size
    end },
    [GREETING] = { 18, function(text, from) return text:sub(from + 9, from + 16) == OPTION and 18 or 152 end },
    [OPTION] = { 16, function(text, from)
        if unpack(">I4", text, from + 9) == EXPORT_NAME then reads().export = true end
        return 16 + unpack(">I4", text, from + 13)
    end },
    [OPTION_ANSWER] = { 20, function(text, from) return 20 + unpack(">I4", text, from + 17) end },
}
local CLIENT_FLAGS, EXPORT, PADDED_EXPORT = 4, 10, 134
HEADS["\0\0\0\0"] = { 4, head_only(CLIENT_FLAGS) }
for flags = 1, 3 do HEADS["\0\0\0" .. string.char(flags)] = HEADS["\0\0\0\0"] end

local function scan(text, from, last)
    if last - from < 4 then return nil, from end
    local from_server = host.current.way.src_is_server
    local head = HEADS[text:sub(from + 1, from + 4)]
    if head and from_server and head[1] == 4 then head = nil end
    if not head then
        if last - from < 8 then return nil, from end
        head = HEADS[text:sub(from + 1, from + 8)]
    end
    if not head then -- the size and flags of an export asked for by EXPORT_NAME
        local of, place = reads(), framing.message_place()
        if not from_server or not of.export or (of.export_at or place) ~= place then return false end
        if last - from < EXPORT then return nil, from end
        of.export_at = place
        local padded = text:find("^" .. ("%z"):rep(124), from + EXPORT + 1)
        return from + (padded and PADDED_EXPORT or EXPORT)
    end
    if last - from < head[1] then return nil, from end
    local size = head[2](text, from)
    return size and size <= framing.MAX and from + size
end

---------------------------------------------------------------------------------------------------
-- Messages

local function show_request(t, message, text, pinfo)
    local extended = text:sub(1, 4) == EXTENDED_REQUEST
    local head = extended and 32 or 28
    if #text < head then return "request" end
    local kind = unpack(">I2", text, 7)
    local name = COMMANDS[kind] or ("command %d"):format(kind)
    t:add(F.flags, message:range(4, 2))
    t:add(F.command, message:range(6, 2))
    t:add(F.cookie, message:range(8, 8))
    t:add(F.offset, message:range(16, 8))
    t:add(F.length, message:range(24, head - 24))
    if #text > head then t:add(F.data, message:range(head)) end
    if kind ~= DISC then exchanges.question("NBD", name, text:sub(9, 16), t, pinfo) end
    local high, low = unpack(">I4I4", text, 17)
    return ("%s offset %.0f, %d bytes"):format(name, high * 2 ^ 32 + low, unpack(">I4", text, head - 3))
end

-- A NBD error, which has Linux's numbers.
local function error_name(number) return errno[number] or ("error %d"):format(number) end

local function show_reply(t, message, text, pinfo)
    if #text < 16 then return "reply" end
    local number = unpack(">I4", text, 5)
    local failure = number ~= 0 and error_name(number) or nil
    if failure then t:add(F.failure, message:range(4, 4), failure) end
    t:add(F.cookie, message:range(8, 8))
    if #text > 16 then t:add(F.data, message:range(16)) end
    exchanges.answer(text:sub(9, 16), failure, t, pinfo)
    return failure and "reply " .. failure or ("reply, %d bytes"):format(#text - 16)
end

local function show_chunk(t, message, text, pinfo)
    local head = text:sub(1, 4) == CHUNK and 20 or 32
    if #text < head then return "reply" end
    local flags, kind = unpack(">I2I2", text, 5)
    local name = CHUNKS[kind] or ("reply type %d"):format(kind)
    t:add(F.flags, message:range(4, 2))
    t:add(F.chunk, message:range(6, 2))
    t:add(F.cookie, message:range(8, 8))
    if head == 32 then t:add(F.offset, message:range(16, 8)) end
    t:add(F.length, message:range(head == 32 and 24 or 16, head == 32 and 8 or 4))
    local failure
    if kind >= 0x8000 and #text >= head + 4 then
        local number = unpack(">I4", text, head + 1)
        failure = error_name(number)
        t:add(F.failure, message:range(head, 4), failure)
    elseif #text > head then
        t:add(F.data, message:range(head))
    end
    exchanges.answer(text:sub(9, 16), failure, t, pinfo, flags % 2 == 0)
    return failure and ("%s %s"):format(name, failure) or ("%s, %d bytes"):format(name, #text - head)
end

local function show_option(t, message, text, pinfo)
    if #text < 16 then return "option" end
    local option, size = unpack(">I4I4", text, 9)
    local name = OPTIONS[option] or ("option %d"):format(option)
    local words = "option " .. name
    t:add(F.option, message:range(8, 4))
    if #text > 16 then
        local at, length = 16, size
        if option ~= EXPORT_NAME and #text >= 20 then at, length = 20, unpack(">I4", text, 17) end
        local has_name = option == EXPORT_NAME or option >= 6 and option ~= 8
        if has_name and length > 0 and at + length <= #text then
            local export = printable(text:sub(at + 1, at + length))
            t:add(F.name, message:range(at, length), export)
            words = words .. " " .. export
        else
            t:add(F.data, message:range(16))
        end
    end
    if option ~= EXPORT_NAME and option ~= ABORT then
        exchanges.question("NBD", words:match("^option %S+"), "option " .. option, t, pinfo)
    end
    return words
end

local function show_option_answer(t, message, text, pinfo)
    if #text < 20 then return "answer" end
    local option, kind = unpack(">I4I4", text, 9)
    local name = ANSWERS[kind] or ("type %d"):format(kind)
    t:add(F.option, message:range(8, 4))
    t:add(F.answer, message:range(12, 4))
    if #text > 20 then t:add(F.data, message:range(20)) end
    local failure = kind >= ERROR and name or nil
    exchanges.answer("option " .. option, failure, t, pinfo, kind > 1 and kind < ERROR)
    return ("answer %s to %s"):format(name, OPTIONS[option] or ("option %d"):format(option))
end

local function show_greeting(t, message, text)
    if #text >= 18 then t:add(F.flags, message:range(#text == 152 and 26 or 16, 2)) end
    if #text == 152 then t:add(F.size, message:range(16, 8)) end
    return #text == 152 and "old greeting" or "greeting"
end

local SHOW = {
    [REQUEST] = show_request, [EXTENDED_REQUEST] = show_request, [REPLY] = show_reply, [CHUNK] = show_chunk,
    [EXTENDED_CHUNK] = show_chunk, [OPTION] = show_option, [OPTION_ANSWER] = show_option_answer,
    [GREETING] = show_greeting,
}

local function show(message, pinfo, tree)
    local t, text = tree:add(proto, message:range(0, message:len())), message:raw(0, message:len())
    local shower = SHOW[text:sub(1, 8)] or SHOW[text:sub(1, 4)]
    local info
    if shower then
        info = shower(t, message, text, pinfo)
    elseif #text == CLIENT_FLAGS and not host.current.way.src_is_server then
        info = "client flags"
        t:add(F.client_flags, message:range(0, 4))
    elseif #text >= EXPORT then
        info = "export"
        t:add(F.size, message:range(0, 8))
        t:add(F.flags, message:range(8, 2))
    else
        info = "part of a message"
    end
    t:add(F.phase, message:range(0, #text), info)
    t:append_text(", " .. info)
    framing.info(pinfo, "NBD", info)
end

protocol.proto = framing.dissector(proto, scan, show, 0)
return protocol
