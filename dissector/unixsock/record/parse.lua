-- Parses a record from its bytes alone: nothing is remembered of the records before.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local layout = host.load("record/format")
local text = host.load("util/text")
local conversations = host.load("transport/conversations")
local HEADER_LEN, AT, ELEMENT, FLAG, ROLE = layout.HEADER_LEN, layout.AT, layout.ELEMENT, layout.FLAG, layout.ROLE
local VERSION, has = layout.VERSION, layout.has

local M = {}
local unpack = Struct.unpack

---------------------------------------------------------------------------------------------------
-- Elements

-- By type: bytes of the fixed part, the name for messages, and the key for those that are bytes throughout.
local FIXED, NAMES, BYTES = {}, {}, {}
for name, kind in pairs(ELEMENT) do
    FIXED[kind] = layout.ELEMENT_LEN[name]
    NAMES[kind] = name
    if not FIXED[kind] then BYTES[kind] = name:lower() end
end

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
        local kind, length = unpack("<I2I2", bytes, at + 1)
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
                el.wrong = ("element %s has %d of %d bytes"):format(NAMES[kind], length, FIXED[kind])
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

local SOME = 4 -- descriptors that are named in a line

-- The elements other than byte strings, as text.
local function read_values(el, bytes)
    local function unpack_at(place, format) return unpack(format, bytes, place[1] - HEADER_LEN + 1) end
    local place = el[ELEMENT.ERROR]
    if place then
        local errno = unpack_at(place, "<I4")
        el.error = host.load("util/errno")[errno] or ("errno %d"):format(errno)
    end
    place = el[ELEMENT.FDS]
    if place or el.fds then el.fds_count = place and unpack_at(place, "<I4") or #el.fds end
    for i, fd in ipairs(el.fds or {}) do
        local kind = layout.FD_KINDS[unpack_at(fd, "<I4")] or "other"
        if i == 1 then
            local path = bytes:sub(fd[1] - HEADER_LEN + 13, fd[1] - HEADER_LEN + fd[2])
            el.fd_kinds = path ~= "" and kind .. " " .. text.printable(path) or kind
        elseif i <= SOME then
            el.fd_kinds = el.fd_kinds .. ", " .. kind
        end
    end
    if #(el.fds or {}) > SOME then el.fd_kinds = el.fd_kinds .. ", …" end
    place = el[ELEMENT.SHUTDOWN]
    if place then el.how = unpack_at(place, "<I4") end
    place = el[ELEMENT.BACKLOG]
    if place then el.waiting, el.limit = unpack_at(place, "<I4I4") end
    place = el[ELEMENT.LOST]
    if place then
        local m_lo, m_hi, b_lo, b_hi, reasons = unpack_at(place, "<I4I4I4I4I4")
        local two32 = 2 ^ 32 -- not an integer, which wraps around in Lua 5.4
        el.lost_messages, el.lost_bytes = m_lo + m_hi * two32, b_lo + b_hi * two32
        el.lost = ("%.0f message%s (%.0f bytes) lost"):format(
            el.lost_messages, el.lost_messages == 1 and "" or "s", el.lost_bytes)
        if reasons > 0 then el.lost = el.lost .. ": " .. layout.lost_reasons(reasons) end
    end
end

---------------------------------------------------------------------------------------------------
-- The record

-- A record is one table, filled anew for each.  What most records of a direction have in common is kept by its
-- bytes for a while: in `way` what belongs to the pair of sockets, in `shared` what it has in common with other pairs.
-- Many small tables would cost more in Lua's garbage collection than reading them again.

-- The bound name of the conversation and its place: the server's, else either side's (Record.name in record.py).
local function choose_name(el, role)
    local first, second = ELEMENT.DST_NAME, ELEMENT.SRC_NAME
    local a, b = el.dst_name, el.src_name
    if role == ROLE.SRC_IS_SERVER then first, second, a, b = second, first, b, a end
    if a and a ~= "" then return a, el[first] end
    if b and b ~= "" then return b, el[second] end
end

local function src_is_server(shared, src_sock, dst_sock)
    if shared.role == ROLE.SRC_IS_SERVER then return true end
    if shared.role == ROLE.DST_IS_SERVER then return false end
    local src, dst = (shared.el.src_name or "") ~= "", (shared.el.dst_name or "") ~= ""
    if src ~= dst then return src end
    return src_sock:reverse() < dst_sock:reverse() -- little-endian numbers
end

-- An end of the conversation: its process, else its name.
local function side(comm, pid, name)
    return text.process(comm, pid) or name and name ~= "" and text.socket_name(name) or "?"
end

-- A cache of bounded size: M.forget() empties both when one is full.
local KEPT, VARIANTS, LARGE = 8192, 8, 512 -- large elements count more than once
local ways, way_count -- by the pair of sockets; several of a pair are chained by `next`
local known, known_count -- by the elements, then by the header's fields in PROCESSES

function M.forget()
    ways, way_count = {}, 0
    known, known_count = {}, 0
end

M.forget()

-- What every record has of its own, from `seq` to the header's end.  64-bit numbers are read as two halves, low
-- first: Lua 5.2 has no integers of that size.  (What is passed over with "x" would cost as much as what is read.)
local READ, READ_AT = "<I4I4I4I4I4I4I4I4", AT.seq + 1
local SOCKS, SOCKS_LAST = AT.src_sock + 1, AT.src_inode -- the pair of sockets
local PROCESSES = { AT.src_pid + 1, AT.src_tid } -- pids, type, role and flags

-- What is the same in the records of a way: the header from its length to its positions, and the elements.
local FIRST, LAST, ELEMENTS = AT.header_len + 1, AT.seq, HEADER_LEN + 1
local sub, byte, find = string.sub, string.byte, string.find

local function describe(bytes, elements, kind, role, flags)
    local src_pid, dst_pid = unpack("<I4I4", bytes, AT.src_pid + 1)
    local el = parse_elements(elements)
    read_values(el, elements)
    local name, name_at = choose_name(el, role)
    local shared = {
        src_pid = src_pid, dst_pid = dst_pid, type = kind, role = role, flags = flags, elements = elements, el = el,
        header_len = HEADER_LEN + #elements, wrong = el.wrong,
        from_start = has(flags, FLAG.FROM_START), truncated = has(flags, FLAG.TRUNCATED),
        name = name, name_at = name_at, path = name and text.socket_name(name),
        src_text = side(el.src_comm, src_pid, el.src_name), dst_text = side(el.dst_comm, dst_pid, el.dst_name),
    }
    local path, type_name = shared.path or "(unnamed)", layout.TYPES[kind] or "socket"
    shared.about = host.prefs.path_in_info and path .. "  " .. type_name or type_name
    shared.title = (", %s → %s, %s, %s"):format(shared.src_text, shared.dst_text, path, type_name)
    shared.entire = shared.from_start and not shared.truncated
    shared.remarkable = el.wrong or el.lost or el.fds_count or el.unknown or shared.truncated
    return shared
end

local function new_way(bytes, header_len, socks)
    local elements = sub(bytes, ELEMENTS, header_len)
    local same = known[elements] or {}
    local processes = sub(bytes, PROCESSES[1], PROCESSES[2])
    local shared = same[processes]
    if not shared then
        local kind, role, flags = unpack("<BBI2", bytes, AT.type + 1)
        shared = describe(bytes, elements, kind, role, flags)
        known[elements], same[processes] = same, shared
        known_count = known_count + 1 + math.floor(#elements / LARGE)
    end
    local src, dst = sub(socks, 1, 8), sub(socks, 9)
    -- There may be thousands of ways: at most eight fields, or each takes twice the memory.
    return {
        shared = shared, fixed = sub(bytes, FIRST, LAST), src_is_server = src_is_server(shared, src, dst),
        conversation = conversations.of(src, dst),
    }
end

-- The way of a record that is like none of those kept, which is kept.
local function add_way(bytes, header_len)
    if way_count >= KEPT or known_count >= KEPT then M.forget() end
    local socks = sub(bytes, SOCKS, SOCKS_LAST)
    local way, last, length = new_way(bytes, header_len, socks), ways[socks], 1
    while last and last.next do last, length = last.next, length + 1 end
    if last and length < VARIANTS then
        last.next, way_count = way, way_count + 1
    else -- the first, or the first again: what was chained is forgotten
        ways[socks], way_count = way, way_count - (last and length or 0) + 1
    end
    return way
end

-- The way's two sockets, as bytes.
local SRC_SOCK, DST_SOCK = AT.src_sock - AT.header_len + 1, AT.dst_sock - AT.header_len + 1
function M.src_sock(way) return sub(way.fixed, SRC_SOCK, SRC_SOCK + 7) end
function M.dst_sock(way) return sub(way.fixed, DST_SOCK, DST_SOCK + 7) end

local rec = {}
M.current = rec

-- The record's header_len; or nil and a sentence about what is wrong, and true if that is the version.
local function check(bytes)
    local have = #bytes
    local version, _, low, high = byte(bytes, 1, AT.header_len + 2)
    if have > 0 and version ~= VERSION then
        return nil, ("record of format version %d; this dissector knows version %d"):format(version, VERSION), true
    end
    if have < HEADER_LEN then
        return nil, ("record ends in its header: %d of %d bytes"):format(have, HEADER_LEN)
    end
    local header_len = low + high * 256
    if header_len < HEADER_LEN then
        return nil, ("header_len %d is less than the fixed header's %d"):format(header_len, HEADER_LEN)
    elseif header_len > have then
        return nil, ("record ends in its elements: %d of %d bytes"):format(have, header_len)
    end
    return header_len
end

-- Parses a record into M.current, valid until the next call; or returns nil and what check() returns.
-- wrong is such a sentence where some of it can be shown all the same.
function M.read(bytes)
    local version, event = byte(bytes, 1, 2)
    local way = version == VERSION and ways[sub(bytes, SOCKS, SOCKS_LAST)]
    -- (A string to compare with would have to be made.)
    while way and (find(bytes, way.fixed, FIRST, true) ~= FIRST
        or find(bytes, way.shared.elements, ELEMENTS, true) ~= ELEMENTS) do way = way.next end
    if not way then -- else what it has in common with the record has been checked
        local header_len, wrong, is_version = check(bytes)
        if not header_len then return nil, wrong, is_version end
        way = add_way(bytes, header_len)
    end
    local shared = way.shared
    local seq_lo, seq_hi, ack_lo, _, message, len, offset, caplen = unpack(READ, bytes, READ_AT)
    rec.way, rec.shared, rec.event, rec.wrong = way, shared, event, shared.wrong
    rec.seq_lo, rec.seq_hi, rec.ack_lo, rec.message, rec.len, rec.offset = seq_lo, seq_hi, ack_lo, message, len, offset
    local whole = shared.header_len + caplen
    if whole > #bytes then
        rec.wrong = rec.wrong or ("record ends early: %d of %d bytes"):format(#bytes, whole)
        caplen = #bytes - shared.header_len
    end
    rec.caplen = caplen
    return rec
end

return M
