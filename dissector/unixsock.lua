-- Unix domain sockets for Wireshark: dissects the records of the extcap interface "unixsock".
--
-- docs/FORMAT.md describes the record.  A stream's payload goes to Wireshark's own "tcp" dissector as a
-- synthetic segment (unixsock/stream.lua), a datagram's straight to its protocol (unixsock/datagram.lua).
-- Everything shown follows from the record alone, so that one pass, two passes and a click in the packet
-- list agree.  Runs unchanged on Wireshark 4.0 (Lua 5.2) to 4.6 (Lua 5.4).

if Dissector.get("unixsock") then return end -- a second copy, in another plugin folder

if set_plugin_info then
    set_plugin_info({ version = "1.0", author = "unixsock-bpf", description = "Unix domain sockets" })
end

---------------------------------------------------------------------------------------------------
-- Where the other files are

-- The folder of this very file: next to it, or next to what a symbolic link points to.
local function folder()
    local script = debug.getinfo(1, "S").source:gsub("^@", "")
    local function beside(file)
        local path = (file:match("^(.*)/[^/]*$") or ".") .. "/unixsock/"
        local probe = io.open(path .. "errno.lua")
        if probe then probe:close() end
        return probe and path
    end
    local found = beside(script)
    if not found and io.popen then
        local pipe = io.popen("readlink -f -- '" .. script:gsub("'", "'\\''") .. "'")
        local target = pipe and pipe:read("*l")
        if pipe then pipe:close() end
        found = target and beside(target)
    end
    return found or error("the folder 'unixsock' that belongs to " .. script .. " is missing")
end

local FOLDER = folder()

local loaded = {}
local host = {} -- what the other files get: this table, filled below

function host.load(name)
    if loaded[name] == nil then loaded[name] = assert(loadfile(FOLDER .. name .. ".lua"))(host) end
    return loaded[name]
end

---------------------------------------------------------------------------------------------------
-- Layout of the record (unixsock_bpf/record.py declares it; tests/unit/test_record_layout.py compares)

local VERSION = 1

local HEADER = {
    { "version", "B" }, { "event", "B" }, { "header_len", "H" }, { "src_pid", "I" }, { "dst_pid", "I" },
    { "type", "B" }, { "role", "B" }, { "flags", "H" }, { "src_tid", "I" }, { "src_uid", "I" },
    { "src_gid", "I" }, { "dst_uid", "I" }, { "dst_gid", "I" }, { "netns", "I" }, { "src_sock", "Q" },
    { "dst_sock", "Q" }, { "src_inode", "Q" }, { "dst_inode", "Q" }, { "seq", "Q" }, { "ack", "Q" },
    { "message", "I" }, { "len", "I" }, { "offset", "I" }, { "caplen", "I" },
}

local EVENT = { DATA = 0, CONNECT = 1, ACCEPT = 2, SHUTDOWN = 3, CLOSE = 4, SEND_ERROR = 5, LOST = 6 }
local SOCKET_TYPE = { STREAM = 1, DGRAM = 2, SEQPACKET = 5 }
local ROLE = { UNKNOWN = 0, SRC_IS_SERVER = 1, DST_IS_SERVER = 2 }
local FLAG = {
    TRUNCATED = 0x1, OOB = 0x2, SRC_CREDS = 0x4, DST_CREDS = 0x8, MORE = 0x10, UNREADABLE = 0x20,
    DST_GUESSED = 0x40, FROM_START = 0x80, UNORDERED = 0x100, SOCKETPAIR = 0x200,
}
local ELEMENT = {
    SRC_COMM = 1, DST_COMM = 2, SRC_NAME = 3, DST_NAME = 4, CREDS = 5, FDS = 6, FD = 7, CGROUP = 8,
    LOST = 9, ERROR = 10, SHUTDOWN = 11, SRC_PATH = 12, DST_PATH = 13,
}
-- Bytes of an element's fixed part; elements that are missing here are bytes throughout.
local ELEMENT_LEN = { CREDS = 12, FDS = 4, FD = 12, LOST = 20, ERROR = 4, SHUTDOWN = 4 }
local FD_KIND = {
    OTHER = 0, FILE = 1, DIRECTORY = 2, CHARDEV = 3, BLOCKDEV = 4, PIPE = 5, SOCKET = 6, MEMFD = 7,
    ANON = 8, EVENTFD = 9, EPOLL = 10, TIMERFD = 11, SIGNALFD = 12, INOTIFY = 13, PIDFD = 14,
    DMABUF = 15, BPF = 16, IO_URING = 17,
}
local LOST_REASON = { RING_FULL = 1, NESTED = 2, UNREADABLE = 4, NO_STATE = 8 }

-- 64-bit numbers are read as two halves, low first: Lua 5.2 has no integers of that size.
local STRUCT = { B = "B", H = "I2", I = "I4", Q = "I4I4" }
local SIZE = { B = 1, H = 2, I = 4, Q = 8 }
local FORMAT, HEADER_LEN, AT = "<", 0, {}
for _, field in ipairs(HEADER) do
    FORMAT = FORMAT .. STRUCT[field[2]]
    AT[field[1]] = HEADER_LEN
    HEADER_LEN = HEADER_LEN + SIZE[field[2]]
end

-- The names of an enumeration by value, in lower case as they are shown: RING_FULL -> "ring full".
local function words(enum)
    local names = {}
    for name, value in pairs(enum) do names[value] = name:lower():gsub("_", " ") end
    return names
end

local EVENTS, TYPES, ROLES, FD_KINDS = words(EVENT), words(SOCKET_TYPE), words(ROLE), words(FD_KIND)
FD_KINDS[FD_KIND.IO_URING] = "io_uring"
local ERRNO = host.load("errno")
local SHUTDOWN_HOW = { [0] = "SHUT_RD", [1] = "SHUT_WR", [2] = "SHUT_RDWR" }

---------------------------------------------------------------------------------------------------
-- Protocol, fields, expert items, preferences

local proto = Proto("unixsock", "Unix Domain Socket")
local F, all = {}, {}
local function field(key, kind, text, ...)
    F[key] = ProtoField[kind]("unixsock." .. key, text, ...)
    all[#all + 1] = F[key]
end

field("version", "uint8", "Format version")
field("event", "uint8", "Event", base.DEC, EVENTS)
field("header_len", "uint16", "Header length")
field("src.pid", "uint32", "Sender process")
field("dst.pid", "uint32", "Receiver process")
field("pid", "uint32", "Process of either side")
field("type", "uint8", "Socket type", base.DEC, TYPES)
field("role", "uint8", "Server side", base.DEC, ROLES)
field("flags", "uint16", "Flags", base.HEX)
for _, flag in ipairs({
    { "truncated", "Truncated", FLAG.TRUNCATED }, { "oob", "Sent out of band", FLAG.OOB },
    { "src_creds", "Sender's user known", FLAG.SRC_CREDS },
    { "dst_creds", "Receiver's user known", FLAG.DST_CREDS },
    { "more", "More of this message follows", FLAG.MORE },
    { "unreadable", "Memory could not be read", FLAG.UNREADABLE },
    { "dst_guessed", "Receiver process is a guess", FLAG.DST_GUESSED },
    { "from_start", "Seen from the connection's start", FLAG.FROM_START },
    { "unordered", "Several threads were writing", FLAG.UNORDERED },
    { "socketpair", "Socket pair", FLAG.SOCKETPAIR },
}) do
    field("flags." .. flag[1], "bool", flag[2], 16, nil, flag[3])
end
field("flags.abstract", "bool", "Abstract name")
field("src.tid", "uint32", "Sending thread")
for _, side in ipairs({ { "src", "Sender" }, { "dst", "Receiver" } }) do
    local key, text = side[1], side[2]
    field(key .. ".uid", "uint32", text .. " user id")
    field(key .. ".gid", "uint32", text .. " group id")
    field(key .. ".sock", "uint64", text .. " socket", base.HEX)
    field(key .. ".inode", "uint64", text .. " inode")
    field(key .. ".comm", "string", text .. " command")
    field(key .. ".path", "string", text .. " bound name")
    field(key .. ".file", "string", text .. " socket file")
end
field("uid", "uint32", "User id of either side")
field("inode", "uint64", "Inode of either side")
field("comm", "string", "Command of either side")
field("path", "string", "Path")
field("netns", "uint32", "Network namespace")
field("stream", "uint32", "Conversation index")
field("seq", "uint64", "Position in this direction")
field("ack", "uint64", "Position in the other direction")
field("message", "uint32", "Message number")
field("len", "uint32", "Payload length")
field("offset", "uint32", "Offset in the message")
field("caplen", "uint32", "Captured payload length")
field("payload", "bytes", "Payload")
field("creds.pid", "uint32", "Passed process id")
field("creds.uid", "uint32", "Passed user id")
field("creds.gid", "uint32", "Passed group id")
field("fds.count", "uint32", "Passed descriptors")
field("fd", "none", "Descriptor")
field("fd.type", "string", "Descriptor type")
field("fd.path", "string", "Descriptor path")
field("fd.inode", "uint64", "Descriptor inode")
field("cgroup", "string", "Control group")
field("lost.messages", "uint64", "Lost messages")
field("lost.bytes", "uint64", "Lost bytes")
field("lost.reasons", "string", "Reasons of the loss")
field("error", "string", "Error")
field("shutdown", "uint32", "Shutdown", base.DEC, SHUTDOWN_HOW)
field("element.type", "uint16", "Unknown element type")
field("element.value", "bytes", "Unknown element value")
field("reassembled.len", "uint32", "Length of the joined message")
proto.fields = all

local E = {}
local function expert_item(key, text, group, severity)
    E[key] = ProtoExpert.new("unixsock.expert." .. key, text, group, severity)
end
expert_item("malformed", "Malformed record", expert.group.MALFORMED, expert.severity.ERROR)
expert_item("version", "Unknown format version", expert.group.UNDECODED, expert.severity.WARN)
expert_item("unknown", "Unknown element", expert.group.UNDECODED, expert.severity.NOTE)
expert_item("truncated", "Payload truncated", expert.group.PROTOCOL, expert.severity.NOTE)
expert_item("lost", "Records lost", expert.group.SEQUENCE, expert.severity.WARN)
expert_item("fds", "Descriptors passed", expert.group.SECURITY, expert.severity.CHAT)
expert_item("failed", "Send failed", expert.group.RESPONSE_CODE, expert.severity.NOTE)
local experts = {}
for _, item in pairs(E) do experts[#experts + 1] = item end
proto.experts = experts

local prefs = proto.prefs
prefs.reassemble = Pref.bool("Streams as TCP segments", true,
    "Reassemble streams through Wireshark's TCP dissector, with Follow Stream and conversations")
prefs.columns = Pref.bool("Processes as source and destination", true,
    "Show comm[pid] in the columns; off: the sockets' pseudo addresses and their names")
prefs.paths = Pref.string("Protocols by path", "",
    "GLOB=PROTOCOL entries separated by spaces or semicolons, tried before the built-in table;"
    .. " PROTOCOL is a dissector's name, or 'data' for none")
prefs.heuristics = Pref.bool("Try Wireshark's TCP heuristics", false,
    "Offer payload that neither the table nor its content tells to Wireshark's heuristic dissectors")

local function has(flags, bit) return math.floor(flags / bit) % 2 == 1 end

host.has = has
host.prefs, host.FLAG, host.EVENT, host.SOCKET_TYPE = prefs, FLAG, EVENT, SOCKET_TYPE

---------------------------------------------------------------------------------------------------
-- Text

-- Bytes as harmless text: control characters and what is not UTF-8 become \xNN.
local function hex_escape(bytes)
    return (bytes:gsub(".", function(c) return ("\\x%02x"):format(c:byte()) end))
end

local TRAIL = "[\128-\191]"
local WELL_FORMED = { -- Unicode's table of well-formed UTF-8, without the C1 controls
    "^\194[\160-\191]", "^[\195-\223]" .. TRAIL, "^\224[\160-\191]" .. TRAIL,
    "^[\225-\236\238\239]" .. TRAIL .. TRAIL, "^\237[\128-\159]" .. TRAIL,
    "^\240[\144-\191]" .. TRAIL .. TRAIL, "^[\241-\243]" .. TRAIL .. TRAIL .. TRAIL,
    "^\244[\128-\143]" .. TRAIL .. TRAIL,
}

local function printable(bytes)
    if not bytes:find("[%c\128-\255]") then return bytes end
    local parts, at = {}, 1
    while at <= #bytes do
        local plain = bytes:match("^[\32-\126]+", at)
        for _, pattern in ipairs(plain and {} or WELL_FORMED) do
            plain = plain or bytes:match(pattern, at)
        end
        parts[#parts + 1] = plain or hex_escape(bytes:sub(at, at))
        at = at + (plain and #plain or 1)
    end
    return table.concat(parts)
end
host.printable = printable

-- A socket name as people write it: @ for the abstract name space, as in /proc/net/unix.
local function display_name(name)
    return printable((name:gsub("%z", "@")))
end

-- The beginning of a payload for the Info column.
local function first_text(bytes)
    local text = bytes:gsub("[^\32-\126]+", ".")
    return #bytes == 64 and text .. "…" or text
end

---------------------------------------------------------------------------------------------------
-- The other parts

local conversations = host.load("conversations")
local payload = host.load("payload")
local stream = host.load("stream")
local datagram = host.load("datagram")
host.load("statistics")

local function start_file()
    conversations.reset()
    payload.reset()
    datagram.reset()
    host.forget_kept() -- records know their conversation
end

function proto.init() start_file() end
function proto.prefs_changed() payload.reset() end

---------------------------------------------------------------------------------------------------
-- Elements

-- Each takes the record's table and an element's value, and gives the text of a mistake or nothing.
local BYTES = {
    [ELEMENT.SRC_COMM] = "src_comm", [ELEMENT.DST_COMM] = "dst_comm",
    [ELEMENT.SRC_NAME] = "src_name", [ELEMENT.DST_NAME] = "dst_name",
    [ELEMENT.SRC_PATH] = "src_path", [ELEMENT.DST_PATH] = "dst_path", [ELEMENT.CGROUP] = "cgroup",
}
local FIXED = {}
local ELEMENT_NAMES = {}
for name, kind in pairs(ELEMENT) do
    FIXED[kind] = ELEMENT_LEN[name]
    ELEMENT_NAMES[kind] = name
end

local unpack_struct = Struct.unpack

-- Reads the elements in `bytes` into a table: byte strings under the names of BYTES, the place of each element
-- (offset in the record and length) under its number, descriptors in fds, unknown ones in unknown, and in
-- wrong a sentence if they contradict each other.
local function parse_elements(bytes)
    local el, at, last = {}, 0, #bytes
    while at < last do
        if at + 4 > last then
            el.wrong = ("element at %d ends in its head"):format(HEADER_LEN + at)
            return el
        end
        local kind, length = unpack_struct("<I2I2", bytes, at + 1)
        local value = at + 4
        at = value + length + (-length) % 4
        if at > last then
            el.wrong = ("element of type %d ends beyond the header"):format(kind)
            return el
        end
        local name, place = BYTES[kind], { HEADER_LEN + value, length }
        if name then
            el[name] = bytes:sub(value + 1, value + length)
            el[kind] = place
        elseif FIXED[kind] then
            if length < FIXED[kind] then
                el.wrong = ("element %s has %d of %d bytes"):format(ELEMENT_NAMES[kind], length, FIXED[kind])
                return el
            elseif kind == ELEMENT.FD then
                el.fds = el.fds or {}
                el.fds[#el.fds + 1] = place
            else
                el[kind] = place
            end
        else
            el.unknown = el.unknown or {}
            el.unknown[#el.unknown + 1] = { place[1] - 4, length, kind }
        end
    end
    return el
end

local function lost_reasons(bits)
    local names = {}
    for name, value in pairs(LOST_REASON) do
        if math.floor(bits / value) % 2 == 1 then names[#names + 1] = name:lower():gsub("_", " ") end
    end
    table.sort(names)
    return table.concat(names, ", ")
end

---------------------------------------------------------------------------------------------------
-- The tree

local FLAG_FIELDS = {}
for key in pairs(F) do
    if key:find("^flags%.") and key ~= "flags.abstract" then FLAG_FIELDS[#FLAG_FIELDS + 1] = key end
end
table.sort(FLAG_FIELDS, function(a, b) return FLAG[a:sub(7):upper()] < FLAG[b:sub(7):upper()] end)

-- Fields of the fixed header that are shown unless they are zero, with where else they appear.
local PLAIN = {
    { "src.pid", "src_pid", 4, "pid" }, { "dst.pid", "dst_pid", 4, "pid" }, { "src.tid", "src_tid", 4 },
    { "type", "type", 1 }, { "role", "role", 1 }, { "netns", "netns", 4 },
    { "src.sock", "src_sock", 8 }, { "dst.sock", "dst_sock", 8 },
    { "src.inode", "src_inode", 8, "inode" }, { "dst.inode", "dst_inode", 8, "inode" },
}
local USERS = {
    { "src.uid", "src_uid", FLAG.SRC_CREDS, "uid" }, { "src.gid", "src_gid", FLAG.SRC_CREDS },
    { "dst.uid", "dst_uid", FLAG.DST_CREDS, "uid" }, { "dst.gid", "dst_gid", FLAG.DST_CREDS },
}
local ZERO = { [1] = "\0", [4] = ("\0"):rep(4), [8] = ("\0"):rep(8) }

local function add_elements(t, tvb, el)
    local function string_field(key, kind, text, either)
        local place = el[kind]
        if not place or place[2] == 0 then return end
        local range = tvb:range(place[1], place[2])
        t:add(F[key], range, text)
        if either then t:add(F[either], range, text):set_hidden() end
    end
    string_field("src.comm", ELEMENT.SRC_COMM, el.src_comm and printable(el.src_comm), "comm")
    string_field("dst.comm", ELEMENT.DST_COMM, el.dst_comm and printable(el.dst_comm), "comm")
    string_field("src.path", ELEMENT.SRC_NAME, el.src_name and display_name(el.src_name))
    string_field("dst.path", ELEMENT.DST_NAME, el.dst_name and display_name(el.dst_name))
    string_field("src.file", ELEMENT.SRC_PATH, el.src_path and printable(el.src_path))
    string_field("dst.file", ELEMENT.DST_PATH, el.dst_path and printable(el.dst_path))
    string_field("cgroup", ELEMENT.CGROUP, el.cgroup and printable(el.cgroup))

    local creds = el[ELEMENT.CREDS]
    if creds then
        t:add_le(F["creds.pid"], tvb:range(creds[1], 4))
        t:add_le(F["creds.uid"], tvb:range(creds[1] + 4, 4))
        t:add_le(F["creds.gid"], tvb:range(creds[1] + 8, 4))
    end
    local fds = el[ELEMENT.FDS]
    if fds then t:add_le(F["fds.count"], tvb:range(fds[1], 4)) end
    for _, place in ipairs(el.fds or {}) do
        local at, length = place[1], place[2]
        local kind = FD_KINDS[tvb:range(at, 4):le_uint()] or "other"
        local d = t:add(F.fd, tvb:range(at, length))
        d:add(F["fd.type"], tvb:range(at, 4), kind)
        d:set_text("Descriptor: " .. kind)
        if tvb:raw(at + 4, 8) ~= ZERO[8] then d:add_le(F["fd.inode"], tvb:range(at + 4, 8)) end
        if length > 12 then
            local path = printable(tvb:raw(at + 12, length - 12))
            d:add(F["fd.path"], tvb:range(at + 12, length - 12), path)
            d:append_text(", " .. path)
        end
    end
    local lost = el[ELEMENT.LOST]
    if lost then
        t:add_le(F["lost.messages"], tvb:range(lost[1], 8))
        t:add_le(F["lost.bytes"], tvb:range(lost[1] + 8, 8))
        local reasons = tvb:range(lost[1] + 16, 4)
        t:add(F["lost.reasons"], reasons, lost_reasons(reasons:le_uint()))
    end
    local failure = el[ELEMENT.ERROR]
    if failure then t:add(F.error, tvb:range(failure[1], 4), el.error) end
    local shut = el[ELEMENT.SHUTDOWN]
    if shut then t:add_le(F.shutdown, tvb:range(shut[1], 4)) end
    for _, place in ipairs(el.unknown or {}) do
        local item = t:add_le(F["element.type"], tvb:range(place[1], 2))
        if place[2] > 0 then item:add(F["element.value"], tvb:range(place[1] + 4, place[2])) end
    end
end

-- All fields of a record.  `head` is its header as bytes, to see what is zero without reading again.
local function add_fields(t, tvb, rec, head)
    t:add(F.version, tvb:range(0, 1))
    t:add(F.event, tvb:range(1, 1))
    t:add_le(F.header_len, tvb:range(2, 2))
    for i = 1, #PLAIN do
        local key, name, size, either = PLAIN[i][1], PLAIN[i][2], PLAIN[i][3], PLAIN[i][4]
        local at = AT[name]
        if head:sub(at + 1, at + size) ~= ZERO[size] then
            local range = tvb:range(at, size)
            t:add_le(F[key], range)
            if either then t:add_le(F[either], range):set_hidden() end
        end
    end
    for i = 1, #USERS do
        local key, name, flag, either = USERS[i][1], USERS[i][2], USERS[i][3], USERS[i][4]
        if has(rec.flags, flag) then
            t:add_le(F[key], tvb:range(AT[name], 4))
            if either then t:add_le(F[either], tvb:range(AT[name], 4)):set_hidden() end
        end
    end
    local flags = t:add_le(F.flags, tvb:range(AT.flags, 2))
    for i = 1, #FLAG_FIELDS do flags:add_le(F[FLAG_FIELDS[i]], tvb:range(AT.flags, 2)) end
    if rec.name then
        flags:add(F["flags.abstract"], rec.name:byte() == 0):set_generated()
        local place = rec.name_at
        t:add(F.path, tvb:range(place[1], place[2]), rec.path)
    end
    t:add(F.stream, rec.stream):set_generated()
    if rec.offset == 0 then
        t:add_le(F.seq, tvb:range(AT.seq, 8))
    else
        t:add(F.seq, tvb:range(AT.seq, 8), UInt64.new(rec.seq_lo, rec.seq_hi) + rec.offset)
    end
    t:add_le(F.ack, tvb:range(AT.ack, 8))
    t:add_le(F.message, tvb:range(AT.message, 4))
    if rec.event == EVENT.DATA or rec.len > 0 then
        t:add_le(F.len, tvb:range(AT.len, 4))
        if rec.offset > 0 then t:add_le(F.offset, tvb:range(AT.offset, 4)) end
        t:add_le(F.caplen, tvb:range(AT.caplen, 4))
    end
    add_elements(t, tvb, rec.el)
end

local function add_experts(t, rec)
    local el = rec.el
    if has(rec.flags, FLAG.TRUNCATED) then
        local missing = has(rec.flags, FLAG.UNREADABLE) and "Memory could not be read" or "Payload truncated"
        t:add_proto_expert_info(E.truncated, ("%s: %d of %d bytes captured"):format(
            missing, rec.offset + rec.caplen, rec.len))
    end
    if el.lost then t:add_proto_expert_info(E.lost, el.lost) end
    local count = el.fds_count
    if count then
        t:add_proto_expert_info(E.fds, ("%d descriptor%s passed"):format(count, count == 1 and "" or "s"))
    end
    if rec.event == EVENT.SEND_ERROR then
        t:add_proto_expert_info(E.failed, "Send failed: " .. (el.error or "unknown error"))
    end
    for _, place in ipairs(el.unknown or {}) do
        t:add_proto_expert_info(E.unknown, ("Element of unknown type %d, %d bytes"):format(place[3], place[2]))
    end
end

---------------------------------------------------------------------------------------------------
-- Info

-- A process as comm[pid], or as much of it as is known, or nil.
local function process(comm, pid)
    if pid ~= 0 then return ("%s[%d]"):format(comm and printable(comm) or "", pid) end
    return comm and comm ~= "" and printable(comm) or nil
end
host.process = process

-- An end of the conversation: its process, else its name.
local function side(comm, pid, name)
    return process(comm, pid) or name and name ~= "" and display_name(name) or "?"
end

local function info_text(rec, data)
    local text = (rec.path or "(unnamed)") .. "  " .. (TYPES[rec.type] or "socket")
    if rec.event == EVENT.DATA then
        text = text .. "  len=" .. rec.len
        if rec.offset > 0 then text = text .. "  offset=" .. rec.offset end
        return data ~= "" and text .. "  " .. first_text(data) or text
    elseif rec.event == EVENT.LOST then
        return text .. "  " .. (rec.el.lost or "records lost")
    elseif rec.event == EVENT.SEND_ERROR then
        return text .. "  send failed: " .. (rec.el.error or "unknown error") .. "  len=" .. rec.len
    elseif rec.event == EVENT.SHUTDOWN then
        return text .. "  " .. (SHUTDOWN_HOW[rec.el.how] or "shutdown")
    end
    return text .. "  " .. (EVENTS[rec.event] or ("event " .. rec.event))
end

---------------------------------------------------------------------------------------------------
-- The dissector

local function malformed(tvb, tree, item, sentence)
    local length = tvb:len()
    local t = tree:add(proto, length > 0 and tvb:range(0, length) or tvb)
    t:add_proto_expert_info(item, sentence)
    return t
end

-- What the elements say beyond byte strings, in words.
local function read_values(el, bytes)
    local function unpack_at(place, format) return unpack_struct(format, bytes, place[1] - HEADER_LEN + 1) end
    local place = el[ELEMENT.ERROR]
    if place then
        local errno = unpack_at(place, "<I4")
        el.error = ERRNO[errno] or ("errno %d"):format(errno)
    end
    place = el[ELEMENT.FDS]
    if place or el.fds then el.fds_count = place and unpack_at(place, "<I4") or #el.fds end
    place = el[ELEMENT.SHUTDOWN]
    if place then el.how = unpack_at(place, "<I4") end
    place = el[ELEMENT.LOST]
    if place then
        local m_lo, m_hi, b_lo, b_hi, reasons = unpack_at(place, "<I4I4I4I4I4")
        local two32 = 4294967296
        el.lost_messages, el.lost_bytes = m_lo + m_hi * two32, b_lo + b_hi * two32
        el.lost = ("%.0f messages (%.0f bytes) lost"):format(el.lost_messages, el.lost_bytes)
        if reasons > 0 then el.lost = el.lost .. ": " .. lost_reasons(reasons) end
    end
    el.remarkable = el.lost or el.fds_count or el.unknown
end

-- The bound name of the conversation: the server's, else either side's (Record.name in record.py).
local function choose_name(el, role)
    local first, second = ELEMENT.DST_NAME, ELEMENT.SRC_NAME
    local a, b = el.dst_name, el.src_name
    if role == ROLE.SRC_IS_SERVER then first, second, a, b = second, first, b, a end
    local chosen = {}
    if a and a ~= "" then
        chosen.name, chosen.at = a, el[first]
    elseif b and b ~= "" then
        chosen.name, chosen.at = b, el[second]
    end
    if chosen.name then chosen.path = display_name(chosen.name) end
    return chosen
end

-- Most records of a direction differ in their positions and payload only.  What the rest of a record says is kept
-- by its bytes for a while, in a table that serves as the record: reading the next one fills in what differs.
local kept, kept_count = {}, 0

local function forget_kept() kept, kept_count = {}, 0 end
host.forget_kept = forget_kept

local function src_is_server(rec)
    if rec.role == ROLE.SRC_IS_SERVER then return true end
    if rec.role == ROLE.DST_IS_SERVER then return false end
    local src, dst = (rec.el.src_name or "") ~= "", (rec.el.dst_name or "") ~= ""
    if src ~= dst then return src end
    return rec.src_sock:reverse() < rec.dst_sock:reverse() -- little-endian numbers
end

local function new_record(bytes, header_len)
    local _, _, _, src_pid, dst_pid, kind, role, flags = unpack_struct(FORMAT, bytes)
    local rec = {
        header_len = header_len, src_pid = src_pid, dst_pid = dst_pid, type = kind, role = role, flags = flags,
        src_sock = bytes:sub(AT.src_sock + 1, AT.src_sock + 8),
        dst_sock = bytes:sub(AT.dst_sock + 1, AT.dst_sock + 8),
    }
    local elements = bytes:sub(HEADER_LEN + 1, header_len)
    local el = parse_elements(elements)
    read_values(el, elements)
    local chosen = choose_name(el, role)
    rec.el, rec.name, rec.name_at, rec.path, rec.wrong_elements = el, chosen.name, chosen.at, chosen.path, el.wrong
    rec.src_is_server = src_is_server(rec)
    rec.stream, rec.conversation = conversations.index(rec)
    rec.src_text = side(el.src_comm, src_pid, el.src_name)
    rec.dst_text = side(el.dst_comm, dst_pid, el.dst_name)
    return rec
end

-- What a record's bytes say, valid until the next call; or nil and the sentence that says what is wrong.
local function read_record(bytes)
    local have = #bytes
    if have < HEADER_LEN then
        return nil, ("record ends in its header: %d of %d bytes"):format(have, HEADER_LEN)
    end
    local _, event, header_len = unpack_struct("<BBI2", bytes)
    if header_len < HEADER_LEN then
        return nil, ("header_len %d is less than the fixed header's %d"):format(header_len, HEADER_LEN)
    elseif header_len > have then
        return nil, ("record ends in its elements: %d of %d bytes"):format(have, header_len)
    end
    local fixed, elements = bytes:sub(1, AT.seq), bytes:sub(HEADER_LEN + 1, header_len)
    local same_head = kept[fixed]
    local rec = same_head and same_head[elements]
    if not rec then
        if kept_count >= 4096 then forget_kept() end
        rec = new_record(bytes, header_len)
        kept[fixed] = kept[fixed] or {}
        kept[fixed][elements], kept_count = rec, kept_count + 1
    end
    rec.event, rec.wrong = event, rec.wrong_elements
    local caplen
    rec.seq_lo, rec.seq_hi, rec.ack_lo, _, rec.message, rec.len, rec.offset, caplen = unpack_struct(
        "<I4I4I4I4I4I4I4I4", bytes, AT.seq + 1)
    if header_len + caplen > have then
        rec.wrong = rec.wrong or ("record ends early: %d of %d bytes"):format(have, header_len + caplen)
        caplen = have - header_len
    end
    rec.caplen, rec.bytes = caplen, bytes
    return rec
end

local self, no_address

function proto.dissector(tvb, pinfo, tree)
    local cols = pinfo.cols
    cols.protocol = "UNIX"
    local bytes = tvb:raw()
    local have = #bytes
    if have > 0 and bytes:byte() ~= VERSION then
        local sentence = ("record of format version %d; this dissector knows version %d"):format(
            bytes:byte(), VERSION)
        local t = malformed(tvb, tree, E.version, sentence)
        t:add(F.version, tvb:range(0, 1))
        cols.info = sentence
        return have
    end
    local rec, wrong = read_record(bytes)
    if not rec then
        malformed(tvb, tree, E.malformed, wrong)
        cols.info = "Malformed: " .. wrong
        return have
    end
    local caplen, header_len = rec.caplen, rec.header_len
    rec.number = pinfo.number
    host.current = rec

    self = self or Dissector.get("unixsock")
    local asked = tree:referenced(self)
    local remarkable = rec.wrong or header_len > HEADER_LEN and rec.el.remarkable or rec.event == EVENT.SEND_ERROR
        or has(rec.flags, FLAG.TRUNCATED)
    local t
    if asked or remarkable then
        t = tree:add(proto, tvb:range(0, header_len))
        if asked then
            add_fields(t, tvb, rec, bytes)
            if caplen > 0 then t:add(F.payload, tvb:range(header_len, caplen)) end
            t:append_text((", %s, %s"):format(rec.path or "(unnamed)", TYPES[rec.type] or "socket"))
        end
        if rec.wrong then t:add_proto_expert_info(E.malformed, "Malformed record: " .. rec.wrong) end
        if remarkable then add_experts(t, rec) end
    end

    no_address = no_address or pinfo.src -- none: the record is all there is
    local handled = false -- and nothing was queued by a failed or lost send
    local queued = rec.event ~= EVENT.LOST and rec.event ~= EVENT.SEND_ERROR
    if queued and rec.type == SOCKET_TYPE.STREAM then
        handled = stream.dissect(rec, tvb, pinfo, tree)
    elseif rec.event == EVENT.DATA then
        handled = datagram.dissect(rec, tvb, pinfo, tree, t, F["reassembled.len"])
    end
    -- A dissector that took the bytes and said nothing leaves the TCP dissector's ports.
    if not handled or tostring(cols.protocol) == "TCP" then
        local data = caplen > 0 and bytes:sub(header_len + 1, header_len + math.min(caplen, 64)) or ""
        cols.protocol = "UNIX"
        cols.info = rec.wrong and "Malformed: " .. rec.wrong or info_text(rec, data)
    end
    if prefs.columns then
        pinfo.src = no_address
        pinfo.dst = no_address
        cols.src = rec.src_text
        cols.dst = rec.dst_text
    end
    return have
end
