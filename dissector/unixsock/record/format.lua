-- Layout of the record (unixsock_bpf/record.py declares it; tests/unit/test_record_copies.py compares).
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

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

local SIZE = { B = 1, H = 2, I = 4, Q = 8 }
local HEADER_LEN, AT = 0, {} -- where each field of the header is, from 0
for _, field in ipairs(HEADER) do
    AT[field[1]] = HEADER_LEN
    HEADER_LEN = HEADER_LEN + SIZE[field[2]]
end

-- The names of an enumeration by value, in lower case as they are shown: RING_FULL -> "ring full".
local function words(enum)
    local names = {}
    for name, value in pairs(enum) do names[value] = name:lower():gsub("_", " ") end
    return names
end

local FD_KINDS = words(FD_KIND)
FD_KINDS[FD_KIND.IO_URING] = "io_uring"

-- The reasons of a loss, as words.
local function lost_reasons(bits)
    local names = {}
    for name, value in pairs(LOST_REASON) do
        if math.floor(bits / value) % 2 == 1 then names[#names + 1] = name:lower():gsub("_", " ") end
    end
    table.sort(names)
    return table.concat(names, ", ")
end

return {
    VERSION = VERSION, HEADER = HEADER, HEADER_LEN = HEADER_LEN, AT = AT, EVENT = EVENT, SOCKET_TYPE = SOCKET_TYPE,
    ROLE = ROLE, FLAG = FLAG, ELEMENT = ELEMENT, ELEMENT_LEN = ELEMENT_LEN,
    EVENTS = words(EVENT), TYPES = words(SOCKET_TYPE), ROLES = words(ROLE), FD_KINDS = FD_KINDS,
    SHUTDOWN_HOW = { [0] = "SHUT_RD", [1] = "SHUT_WR", [2] = "SHUT_RDWR" },
    lost_reasons = lost_reasons,
    has = function(flags, bit) return math.floor(flags / bit) % 2 == 1 end,
}
