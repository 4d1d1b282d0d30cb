-- The record in the packet's tree: fields and expert items.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local layout = host.load("record/format")
local text = host.load("util/text")
local cgroup_names = host.load("util/cgroup_names")
local AT, EVENT, FLAG, ELEMENT, has = layout.AT, layout.EVENT, layout.FLAG, layout.ELEMENT, layout.has
local printable = text.printable

local M = {}
local proto = host.proto
local F, all = {}, {}
local function field(key, kind, name, ...)
    F[key] = ProtoField[kind]("unixsock." .. key, name, ...)
    all[#all + 1] = F[key]
end

field("version", "uint8", "Format version")
field("event", "uint8", "Event", base.DEC, layout.EVENTS)
field("header_len", "uint16", "Header length")
field("src.pid", "uint32", "Sender process")
field("dst.pid", "uint32", "Receiver process")
field("pid", "uint32", "Process of either side")
field("type", "uint8", "Socket type", base.DEC, layout.TYPES)
field("role", "uint8", "Server side", base.DEC, layout.ROLES)
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
    local key, who = side[1], side[2]
    field(key .. ".uid", "uint32", who .. " user id")
    field(key .. ".gid", "uint32", who .. " group id")
    field(key .. ".sock", "uint64", who .. " socket", base.HEX)
    field(key .. ".inode", "uint64", who .. " inode")
    field(key .. ".comm", "string", who .. " command")
    field(key .. ".path", "string", who .. " bound name")
    field(key .. ".file", "string", who .. " socket file")
    field(key .. ".exe", "string", who .. " executable")
    field(key .. ".cmdline", "string", who .. " command line")
    field(key .. ".user", "string", who .. " user")
    field(key .. ".parent", "uint32", who .. " parent process")
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
field("creds.pidfd", "uint32", "Process of the passed pidfd")
field("creds.security", "uint32", "Passed security id")
field("fds.count", "uint32", "Passed descriptors")
field("fd", "none", "Descriptor")
field("fd.type", "string", "Descriptor type")
field("fd.path", "string", "Descriptor path")
field("fd.inode", "uint64", "Descriptor inode")
field("cgroup", "string", "Control group")
field("src.unit", "string", "Sender systemd unit")
field("src.container", "string", "Sender container")
field("lost.messages", "uint64", "Lost messages")
field("lost.bytes", "uint64", "Lost bytes")
field("lost.reasons", "string", "Reasons of the loss")
field("error", "string", "Error")
field("backlog.waiting", "uint32", "Waiting in the receiver's queue")
field("backlog.limit", "uint32", "Limit of the receiver's queue")
field("shutdown", "uint32", "Shutdown", base.DEC, layout.SHUTDOWN_HOW)
field("element.type", "uint16", "Unknown element type")
field("element.value", "bytes", "Unknown element value")
field("reassembled.len", "uint32", "Length of the joined message")
proto.fields = all

local E = {}
local function expert_item(key, name, group, severity)
    E[key] = ProtoExpert.new("unixsock.expert." .. key, name, group, severity)
end
expert_item("malformed", "Malformed record", expert.group.MALFORMED, expert.severity.ERROR)
expert_item("version", "Unknown format version", expert.group.UNDECODED, expert.severity.WARN)
expert_item("unknown", "Unknown element", expert.group.UNDECODED, expert.severity.NOTE)
expert_item("truncated", "Payload truncated", expert.group.PROTOCOL, expert.severity.NOTE)
expert_item("lost", "Records lost", expert.group.SEQUENCE, expert.severity.WARN)
expert_item("paths", "A path's protocol is unknown", expert.group.UNDECODED, expert.severity.WARN)
expert_item("fds", "Descriptors passed", expert.group.SECURITY, expert.severity.CHAT)
expert_item("failed", "Send failed", expert.group.RESPONSE_CODE, expert.severity.NOTE)
expert_item("refused", "Connect or send refused", expert.group.RESPONSE_CODE, expert.severity.WARN)
expert_item("undelivered", "Recorded before, but not delivered", expert.group.SEQUENCE, expert.severity.WARN)
local experts = {}
for _, item in pairs(E) do experts[#experts + 1] = item end
proto.experts = experts
M.fields, M.experts = F, E

---------------------------------------------------------------------------------------------------
-- Fields

local FLAGS = {}
for key in pairs(F) do
    if key:find("^flags%.") and key ~= "flags.abstract" then FLAGS[#FLAGS + 1] = key end
end
table.sort(FLAGS, function(a, b) return FLAG[a:sub(7):upper()] < FLAG[b:sub(7):upper()] end)

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
local STRINGS = { -- shown as text.lua makes them
    { "src.comm", ELEMENT.SRC_COMM, "src_comm", "printable", "comm" },
    { "dst.comm", ELEMENT.DST_COMM, "dst_comm", "printable", "comm" },
    { "src.path", ELEMENT.SRC_NAME, "src_name", "socket_name" },
    { "dst.path", ELEMENT.DST_NAME, "dst_name", "socket_name" },
    { "src.file", ELEMENT.SRC_PATH, "src_path", "printable" },
    { "dst.file", ELEMENT.DST_PATH, "dst_path", "printable" },
    { "cgroup", ELEMENT.CGROUP, "cgroup", "printable" },
    { "src.exe", ELEMENT.SRC_EXE, "src_exe", "printable" },
    { "dst.exe", ELEMENT.DST_EXE, "dst_exe", "printable" },
    { "src.cmdline", ELEMENT.SRC_CMDLINE, "src_cmdline", "arguments" },
    { "dst.cmdline", ELEMENT.DST_CMDLINE, "dst_cmdline", "arguments" },
    { "src.user", ELEMENT.SRC_USER, "src_user", "printable" },
    { "dst.user", ELEMENT.DST_USER, "dst_user", "printable" },
}
local PARENTS = { { "src.parent", ELEMENT.SRC_PARENT }, { "dst.parent", ELEMENT.DST_PARENT } }

-- What is to be shown of a record, but for what differs in the next one: fields with their place, their text where
-- it is not a number, and hidden true where they only serve filters.  `there` tells which of PLAIN are not zero.
local function plan(shared, there)
    local head, flags, elements = {}, {}, {}
    local function put(list, key, at, size, words, either)
        list[#list + 1] = { F[key], at, size, words }
        if either then list[#list + 1] = { F[either], at, size, words, hidden = true } end
    end
    put(head, "version", AT.version, 1)
    put(head, "event", AT.event, 1)
    put(head, "header_len", AT.header_len, 2)
    for i, one in ipairs(PLAIN) do
        if there:sub(i, i) == "1" then put(head, one[1], AT[one[2]], one[3], nil, one[4]) end
    end
    for _, one in ipairs(USERS) do
        if has(shared.flags, one[3]) then put(head, one[1], AT[one[2]], 4, nil, one[4]) end
    end
    for _, key in ipairs(FLAGS) do put(flags, key, AT.flags, 2) end
    for _, one in ipairs(STRINGS) do
        local place = shared.el[one[2]]
        if place and place[2] > 0 then
            put(elements, one[1], place[1], place[2], text[one[4]](shared.el[one[3]]), one[5])
        end
    end
    for _, one in ipairs(PARENTS) do
        local place = shared.el[one[2]]
        if place then put(elements, one[1], place[1], 4) end
    end
    local place = shared.el[ELEMENT.CGROUP]
    local unit, container = cgroup_names.of(shared.el.cgroup or "")
    if unit then put(elements, "src.unit", place[1], place[2], printable(unit)) end
    if container then put(elements, "src.container", place[1], place[2], printable(container)) end
    return { head = head, flags = flags, elements = elements }
end

-- The plan for a record, made once for all that differ in numbers only.
local function plan_of(rec, bytes)
    local way, shared = rec.way, rec.shared
    if not way.plan then
        local there = ""
        for _, one in ipairs(PLAIN) do
            local at = AT[one[2]]
            there = there .. (bytes:sub(at + 1, at + one[3]):find("[^%z]") and "1" or "0")
        end
        shared.plans = shared.plans or {}
        way.plan = shared.plans[there] or plan(shared, there)
        shared.plans[there] = way.plan
    end
    return way.plan
end

-- Functions instead of methods: Wireshark looks a method up anew for each call, which costs as much again.
local add, add_le, referenced, range_of = TreeItem.add, TreeItem.add_le, TreeItem.referenced, Tvb.range
local set_hidden, set_generated = TreeItem.set_hidden, TreeItem.set_generated

local POSITIONS = { { F.ack, AT.ack, 8 }, { F.message, AT.message, 4 } }
local LENGTHS = { { F.len, AT.len, 4 }, { F.caplen, AT.caplen, 4 } }
local PART_LENGTHS = { LENGTHS[1], { F.offset, AT.offset, 4 }, LENGTHS[2] }

-- Adds to `t` what is asked for: everything if the tree is shown, else what a filter or a column refers to.
local function add_list(t, tvb, list, shown)
    local at, size, range
    for i = 1, #list do
        local one = list[i]
        if shown or referenced(t, one[1]) then
            if one[2] ~= at or one[3] ~= size then
                at, size = one[2], one[3]
                range = range_of(tvb, at, size)
            end
            local item
            if one[4] then item = add(t, one[1], range, one[4]) else item = add_le(t, one[1], range) end
            if one.hidden then set_hidden(item) end
        end
    end
end

local function add_rest(t, tvb, el)
    local creds = el[ELEMENT.CREDS]
    if creds then
        t:add_le(F["creds.pid"], tvb:range(creds[1], 4))
        t:add_le(F["creds.uid"], tvb:range(creds[1] + 4, 4))
        t:add_le(F["creds.gid"], tvb:range(creds[1] + 8, 4))
    end
    local pidfd, security = el[ELEMENT.CREDS_PIDFD], el[ELEMENT.CREDS_SECURITY]
    if pidfd then t:add_le(F["creds.pidfd"], tvb:range(pidfd[1], 4)) end
    if security then t:add_le(F["creds.security"], tvb:range(security[1], 4)) end
    local fds = el[ELEMENT.FDS]
    if fds then t:add_le(F["fds.count"], tvb:range(fds[1], 4)) end
    for _, place in ipairs(el.fds or {}) do
        local at, length = place[1], place[2]
        local kind = layout.FD_KINDS[tvb:range(at, 4):le_uint()] or "other"
        local d = t:add(F.fd, tvb:range(at, length))
        d:add(F["fd.type"], tvb:range(at, 4), kind)
        d:set_text("Descriptor: " .. kind)
        if tvb:raw(at + 4, 8):find("[^%z]") then d:add_le(F["fd.inode"], tvb:range(at + 4, 8)) end
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
        t:add(F["lost.reasons"], reasons, layout.lost_reasons(reasons:le_uint()))
    end
    local failure = el[ELEMENT.ERROR]
    if failure then t:add(F.error, tvb:range(failure[1], 4), el.error) end
    local backlog = el[ELEMENT.BACKLOG]
    if backlog then
        t:add_le(F["backlog.waiting"], tvb:range(backlog[1], 4))
        t:add_le(F["backlog.limit"], tvb:range(backlog[1] + 4, 4))
    end
    local shut = el[ELEMENT.SHUTDOWN]
    if shut then t:add_le(F.shutdown, tvb:range(shut[1], 4)) end
    for _, place in ipairs(el.unknown or {}) do
        local item = t:add_le(F["element.type"], tvb:range(place[1], 2))
        if place[2] > 0 then item:add(F["element.value"], tvb:range(place[1] + 4, place[2])) end
    end
end

-- The fields of a record, given its bytes too.
function M.add_fields(t, tvb, rec, bytes)
    local shown = t.visible
    local function wanted(key) return shown or referenced(t, F[key]) end
    local lists = plan_of(rec, bytes)
    add_list(t, tvb, lists.head, shown)
    local flags = t
    if wanted("flags") then flags = add_le(t, F.flags, range_of(tvb, AT.flags, 2)) end
    add_list(flags, tvb, lists.flags, shown)
    local name, place = rec.shared.name, rec.shared.name_at
    if name then
        if wanted("flags.abstract") then set_generated(add(flags, F["flags.abstract"], name:byte() == 0)) end
        if wanted("path") then add(t, F.path, range_of(tvb, place[1], place[2]), rec.shared.path) end
    end
    if wanted("stream") then set_generated(add(t, F.stream, rec.way.conversation.index)) end
    if wanted("seq") then
        add(t, F.seq, range_of(tvb, AT.seq, 8), UInt64.new(rec.seq_lo, rec.seq_hi) + rec.offset)
    end
    add_list(t, tvb, POSITIONS, shown)
    if rec.event == EVENT.DATA or rec.len > 0 then
        add_list(t, tvb, rec.offset > 0 and PART_LENGTHS or LENGTHS, shown)
    end
    add_list(t, tvb, lists.elements, shown)
    add_rest(t, tvb, rec.shared.el)
    if rec.caplen > 0 and wanted("payload") then add(t, F.payload, range_of(tvb, rec.shared.header_len, rec.caplen)) end
    if shown then t:append_text(rec.shared.title) end
end

---------------------------------------------------------------------------------------------------
-- Expert items

-- In the first record: what is wrong with the user's entries for paths.
function M.add_wrong_paths(t, sentences)
    for i = 1, math.min(#sentences, 20) do t:add_proto_expert_info(E.paths, sentences[i]) end
end

-- Why a connect, or a send to an address, was refused, in words.
local REFUSALS = {
    EPERM = "a security module forbids %s", ENOENT = "there is no %s", EINTR = "interrupted while %s had no room",
    EAGAIN = "the queue of %s is full", EACCES = "no permission for %s", ENOTDIR = "a part of %s is no directory",
    ELOOP = "too many links in %s", EPROTOTYPE = "%s is a socket of another type",
    ECONNREFUSED = "nobody listens at %s", EISCONN = "connected already, when it asked for %s",
}
function M.refusal(shared)
    local el = shared.el
    local path = shared.path and shared.path ~= "" and shared.path or "an unnamed address"
    local words = ("refused: %s (%s)"):format((REFUSALS[el.error] or "%s"):gsub("%%s", function() return path end),
        el.error or "unknown error")
    if el.waiting then words = ("%s: %d wait, limit %d"):format(words, el.waiting, el.limit) end
    local listener = text.process(el.dst_comm, shared.dst_pid)
    return listener and ("%s; %s listens"):format(words, listener) or words
end

function M.add_experts(t, rec)
    local el = rec.shared.el
    if rec.wrong then t:add_proto_expert_info(E.malformed, "Malformed record: " .. rec.wrong) end
    if rec.shared.truncated then
        local missing = has(rec.shared.flags, FLAG.UNREADABLE) and "Memory could not be read" or "Payload truncated"
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
    elseif rec.event == EVENT.REFUSED then
        t:add_proto_expert_info(E.refused, "Connect or send " .. M.refusal(rec.shared))
    elseif rec.event == EVENT.UNDELIVERED then
        t:add_proto_expert_info(E.undelivered, ("%d bytes before this were not delivered"):format(rec.len))
    end
    for _, place in ipairs(el.unknown or {}) do
        t:add_proto_expert_info(E.unknown, ("Element of unknown type %d, %d bytes"):format(place[3], place[2]))
    end
end

return M
