-- Which dissector gets a payload: the user's Decode As for the path's port, else the tables of paths,
-- else what the content looks like, else nothing.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local M = {}

local attributes = host.load("util/attributes")
local registry = host.load("dispatch/registry")
local record = host.load("record/parse")
local heuristics = host.load("dispatch/heuristics")
local desegment = host.load("dispatch/desegment")
local http_messages = host.load("dispatch/http_messages")
local joined = host.load("dispatch/joined")
local framing = host.load("protocols/lib/framing")
local pieces = host.load("dispatch/pieces")
local user_paths = host.load("dispatch/user_paths")
local followers = host.load("dispatch/followers")
local matcher = host.load("util/glob").matcher

-- Ports that are free: Wireshark 4.0 to 4.6 registers no dissector for them.
local FIRST_PORT, LAST_PORT = 60001, 62999 -- of servers, by path
local FIRST_CLIENT, CLIENTS = 63000, 2536

local ports, udp_ports = DissectorTable.get("tcp.port"), DissectorTable.get("udp.port")
local data = Dissector.get("data")
-- Wireshark's HTTP for TCP ports: it needs data that only the TCP dissector passes, so Lua can't call it.
local http_over_tcp = registry.get("http-over-tcp")

local MAX_PATH = 108 -- bytes of a socket's name: longer ones are forged

-- Globs of paths, those with most characters first.
local function by_path()
    local all = {}
    local function put(glob, name)
        local matches, characters = matcher(glob)
        all[#all + 1] = { matches, name, characters, #all }
    end
    for _, protocol in ipairs(registry.protocols) do
        for _, glob in ipairs(protocol.paths or {}) do put(glob, protocol.name) end
    end
    for _, entry in ipairs(host.load("dispatch/paths")) do put(entry[1], entry[2]) end
    table.sort(all, function(a, b)
        if a[3] ~= b[3] then return a[3] > b[3] end
        return a[4] < b[4]
    end)
    return all
end

local built_in = by_path()

local WRAPPER -- our dissector at the ports, as text
local standing = {} -- by port: Wireshark's own dissector, where it stands there in our place; see M.begin

local chosen, chosen_count -- the tables' choice by path: a bounded cache
local user_entries = {}
local first_frame -- in which a payload was dissected

-- Sentences on entries of the user's that do not work.
M.wrong_paths = {}

-- Reads the user's choice by path; called when the preferences are known, and all dissectors.
function M.read_paths()
    user_entries, M.wrong_paths = user_paths.read()
end

function M.reset()
    chosen, chosen_count = {}, 0
    pieces.reset()
    first_frame = nil
end

M.reset()

-- The first of `entries` that matches the path, or what it was before a server gave it another name for the time being.
local function search(entries, path)
    local before = path:match("^(.+)%.%d+%.tmp$") or path:match("^(.+)%.tmp$") -- HAProxy's, and others'
    for i = 1, #entries do
        local matches = entries[i][1]
        if matches(path) or before and matches(before) then return entries[i] end
    end
end

-- FNV-1a would need 32-bit products; this one stays exact in a double.
local function hash(text)
    local h = 5381
    for i = 1, #text do h = (h * 33 + text:byte(i)) % 16777213 end
    return h
end

-- What is known of a path, `size` bytes long before anything in it was escaped: { dissector or nil, port }.
local function of_path(path, size)
    local known = chosen[path]
    if known then return known end
    if chosen_count >= 4096 then chosen, chosen_count = {}, 0 end
    local entry
    if path ~= "" and size <= MAX_PATH then entry = search(user_entries, path) or search(built_in, path) end
    local name = entry and entry[2]
    known = {
        dissector = entry and (entry.chosen or registry.get(name)), name = name, framed = entry and entry.framed,
        opaque = name == "data", http = name == "http" and not entry.framed,
        port = FIRST_PORT + hash(path) % (LAST_PORT - FIRST_PORT + 1),
    }
    -- Decode As: read once, since a change of it dissects the whole file anew, which resets the cache.
    local at_port = ports:get_dissector(known.port)
    known.ours = at_port and (tostring(at_port) == WRAPPER or tostring(at_port) == tostring(standing[known.port]))
    known.decode_as = not known.ours and at_port or nil
    known.own = known.http and known.ours and http_over_tcp or nil -- which may have the bytes alone
    chosen[path], chosen_count = known, chosen_count + 1
    return known
end

-- What is known of the record's path, as above.
function M.of(rec)
    local known = rec.shared.known or of_path(rec.shared.path or "", #(rec.shared.name or ""))
    rec.shared.known = known
    return known
end

function M.client_port(sock)
    local a, b = Struct.unpack("<I2I2", sock)
    return FIRST_CLIENT + (a + b) % CLIENTS
end

---------------------------------------------------------------------------------------------------
-- Choosing and calling

local choices, SHORT = host.prefs, heuristics.SHORT
local STREAM = host.load("record/format").SOCKET_TYPE.STREAM
local active -- the record whose payload is being dissected, or nil
local top -- the tree that the payload's layers belong to, where TCP's or UDP's is hung elsewhere
local shown -- a dissector has accepted some of it
local asked -- the wrapper has been called for it

-- What finish() and dissect_raw() give where a dissector has shown something and surely filled the columns.
M.FILLED = "columns filled"
-- What begin() gives where Wireshark's own dissector has the bytes directly: unless they wait for others, it puts its
-- name into the column.
local DIRECT = "direct"
M.DIRECT = DIRECT

-- After so many messages that look like nothing known, no more are looked at.
local TRIES = 16

local ONE_MORE_SEGMENT = 0x0fffffff -- Wireshark's DESEGMENT_ONE_MORE_SEGMENT

-- Functions instead of methods: Wireshark looks a method up anew for each call, which costs as much again.
local raw, len, call_dissector = Tvb.raw, Tvb.len, data.call
local get_can, set_can = attributes.getter("Pinfo", "can_desegment"), attributes.setter("Pinfo", "can_desegment")
local get_wanted = attributes.getter("Pinfo", "desegment_len")

local function first_bytes(tvb, length) return raw(tvb, 0, math.min(length, heuristics.ENOUGH)) end

-- What the content was recognised as, remembered from the frame on where it was: the same in every pass.
local function by_content(rec, tvb, pinfo, length)
    local conversation, number = rec.way.conversation, rec.number
    if conversation.content and number >= conversation.since then return conversation.content end
    if number > (conversation.unknown_since or math.huge) then return nil end
    local name = heuristics.recognise(first_bytes(tvb, length), rec)
    if not name and not rec.shared.from_start and rec.shared.type == STREAM and length <= joined.MOST then
        name = joined.recognise(raw(tvb, 0, length))
    end
    local found = name and registry.get(name)
    if found and not conversation.content then
        conversation.content, conversation.content_name, conversation.since = found, name, number
    elseif not found and not pinfo.visited then
        conversation.tries = (conversation.tries or 0) + 1
        if conversation.tries == TRIES then conversation.unknown_since = number end
    end
    return found
end

-- Gives what the dissector gives.  A C exception arrives as a Lua error when the tree already shows it.
local function call(chosen_dissector, tvb, pinfo, tree, length)
    local ok, taken
    if type(chosen_dissector) == "function" then
        ok, taken = pcall(chosen_dissector, tvb, pinfo, tree)
    else
        ok, taken = pcall(call_dissector, chosen_dissector, tvb, pinfo, tree)
    end
    return ok and taken or not ok and length
end

-- Asks for one more segment before anything is shown.
local function wait(pinfo, length)
    M.waits = true
    pinfo.desegment_offset, pinfo.desegment_len = 0, ONE_MORE_SEGMENT
    return length
end

-- Since which frame HTTP messages have been seen to begin in the record's direction, by the sending socket.
local function synced(rec)
    local conversation = rec.way.conversation
    if not conversation.synced then conversation.synced = {} end
    return conversation.synced, record.src_sock(rec.way)
end

-- Whether HTTP is in the midst of a message that began before the capture.  Wireshark would join the rest of it
-- with the next message; until a first line has been seen in this direction, it is shown as what it is.
local function before_http(rec, tvb, length)
    local frames, sock = synced(rec)
    local since = frames[sock]
    if not since and heuristics.recognise(first_bytes(tvb, length), rec) == "http" then
        since = rec.number
        frames[sock] = since
    end
    return not since or rec.number < since
end

local note, note_number

-- The record's protocol in Info.
function M.note_on(rec) return note_number == rec.number and note or "" end

-- Shows in a payload of the protocol `name` that its file does not work; where it is not known whose a broken file
-- is, in the first.
local function show_broken(rec, name, tvb, tree)
    first_frame = first_frame or rec.number
    local wrong = name and registry.wrong[name:lower()] or rec.number == first_frame and registry.wrong_file
    if not wrong then return end
    note, note_number = "  (" .. wrong .. ")", rec.number
    framing.show_broken(tvb, tree, wrong)
end

-- Shows as many HTTP messages as one packet can have, and counts the others; false if there are not too many.  Where
-- the last one goes on in a later record, `waiting` asks for the rest, so that what follows is read from its beginning.
local function show_some_http(http, tvb, pinfo, tree, length, waiting)
    if length < http_messages.LEAST then return false end
    local text = raw(tvb, 0, length)
    local cut, count, stop, missing
    if http_messages.many(text) then cut, count, stop, missing = http_messages.cut(text) end
    if not cut then return false end
    set_can(pinfo, 0)
    call(http, tvb:range(0, cut):tvb(), pinfo, tree, cut)
    if stop < length and waiting then
        pinfo.desegment_offset, pinfo.desegment_len = stop, missing or ONE_MORE_SEGMENT
        pieces.waits(length, stop, pinfo)
    elseif stop < length then
        count, stop = count + 1, length
    end
    framing.show_more(tvb, pinfo, tree, cut, stop - cut, count)
    shown = M.FILLED
    return true
end

-- Gives the number of bytes that a dissector took, or nil if there is none for them.  `waiting` if the rest of a
-- message may come in a later record.
local function dissect(rec, tvb, pinfo, tree, waiting)
    local shared, length = rec.shared, len(tvb)
    local known = shared.known or M.of(rec)
    local found, http, name = known.dissector, known.http, known.name
    if waiting and length < SHORT and (not found or http) and heuristics.begins_http(raw(tvb, 0, length)) then
        return wait(pinfo, length)
    end
    if http and waiting and not shared.from_start and before_http(rec, tvb, length) then return nil end
    if not found and not registry.wrong[name] then
        found = by_content(rec, tvb, pinfo, length)
        name = rec.way.conversation.content_name
    end
    if registry.any_wrong then show_broken(rec, name, tvb, tree) end
    if waiting and not found and length < SHORT and shared.from_start and rec.seq_lo == 0
        and heuristics.begins(raw(tvb, 0, length)) then
        return wait(pinfo, length)
    end
    if waiting and found and length < desegment.ENOUGH and desegment.waits(name, tvb, length) then
        return wait(pinfo, length)
    end
    if found and not known.opaque and not desegment.too_many(name, tvb, length) then
        local others = waiting and not known.framed and not (name and name:find("^unixsock%."))
        if others and not pieces.may_wait(length, pinfo) then
            waiting = false
            set_can(pinfo, 0)
        end
        if name == "http" and show_some_http(found, tvb, pinfo, tree, length, waiting) then return length end
        local taken = call(found, tvb, pinfo, tree, length)
        if taken ~= 0 and not known.framed then followers.follow(name, tvb, pinfo, tree) end
        if others and waiting and get_wanted(pinfo) ~= 0 then pieces.waits(length, pinfo.desegment_offset, pinfo) end
        if taken ~= 0 then
            if pieces.part or waiting and get_wanted(pinfo) ~= 0 and pinfo.desegment_offset == 0 then
                shown, M.waits = false, true
            else
                local filled = framing.filled_columns(rec) or name == "http" and tostring(pinfo.cols.protocol) ~= "TCP"
                shown = filled and M.FILLED or true
            end
            return taken
        end
    end
    if choices.heuristics then
        local ok, taken = pcall(DissectorTable.try_heuristics, "tcp", tvb, pinfo, tree)
        if ok and taken then
            shown = true
            return length
        end
    end
end

-- The dissector that the TCP and UDP dissectors find at our ports.  It refuses real traffic on them.
local wrapper = framing.payload_proto

function wrapper.dissector(tvb, pinfo, tree)
    local rec = active
    if not rec then return 0 end
    if not asked then framing.start_record(rec.number) end
    asked = true
    local conversation = rec.way.conversation
    -- The last record ever: Wireshark's window dissects earlier ones again when it draws their rows.
    if rec.number > (conversation.asked_at or 0) then conversation.asked_at = rec.number end
    local is_stream = rec.shared.type == STREAM
    if not is_stream then -- UDP has put its ports there
        pinfo.cols.protocol, pinfo.cols.info = "UNIX", ""
        local other = M.of(rec).decode_as
        if other then
            shown = call(other, tvb, pinfo, top or tree, len(tvb)) ~= 0
            return len(tvb)
        end
    end
    tree = top or tree
    local waiting = is_stream and not rec.shared.truncated and get_can(pinfo) > 0 -- else what is missing never comes
    set_can(pinfo, waiting and 2 or 0) -- each dissector on the way takes one off
    local taken = dissect(rec, tvb, pinfo, tree, waiting)
    if not taken then
        pcall(call_dissector, data, tvb, pinfo, tree)
        return len(tvb)
    end
    return taken
end

WRAPPER = tostring(Dissector.get("unixsock_payload"))
ports:add(("%d-%d"):format(FIRST_PORT, LAST_PORT), wrapper)
udp_ports:add(("%d-%d"):format(FIRST_PORT, LAST_PORT), wrapper)

-- Whether the wrapper would do no more for the record, given its bytes too, than call Wireshark's own dissector.
local function needs_no_look(rec, bytes, shared)
    local caplen = rec.caplen
    if caplen > 0 and caplen < SHORT and heuristics.begins_http(bytes:sub(shared.header_len + 1)) then return false end
    if shared.truncated then return false end
    if shared.from_start then return true end
    local frames, sock = synced(rec)
    return frames[sock] and rec.number >= frames[sock]
end

-- Choose what receives the record's bytes.  Between begin and finish the wrapper serves it, and finish returns whether
-- something was shown; or, as the wrapper costs a tenth of a packet's time, Wireshark's own dissector is registered
-- in its place, and begin returns DIRECT.  As long as that stands there, real TCP at the port is dissected so, too.
-- Where the wrapper was not asked, the columns tell: perhaps the bytes wait for others, perhaps the user's Decode As
-- or a dissector that has claimed the conversation has shown them.
-- waits is true if a dissector has begun a message and waits for the rest.
-- `elsewhere`: where TCP's own layer is hung, so that it isn't among those of the payload, which are hung on `tree`.
function M.begin(rec, bytes, tree, elsewhere)
    local shared = rec.shared
    local known = shared.known or M.of(rec)
    local own, port = known.own, known.port
    if own and not (shared.entire and rec.caplen >= SHORT) and not needs_no_look(rec, bytes, shared) then own = nil end
    if own and (elsewhere or pieces.waits_often(rec)
        or rec.caplen >= http_messages.LEAST and http_messages.many(bytes)) then
        own = nil
    end
    if own ~= standing[port] and known.ours then
        ports:add(port, own or wrapper)
        standing[port] = own
    end
    if own then return DIRECT end
    M.open(rec, elsewhere and tree)
end

-- Called where begin() gave DIRECT and the bytes wait for others.
M.waits_directly = pieces.waits_directly

-- The same for a message, which needs no reassembly.
function M.open(rec, tree)
    active, top, shown, asked, M.waits = rec, tree, false, false, false
end

-- Whether the record's payload comes to the wrapper, as it did when the file was read, or can: not where the user's
-- Decode As decides, nor where a dissector has claimed the conversation.
function M.comes_here(rec)
    local known = M.of(rec)
    return known.own or known.ours and (rec.way.conversation.asked_at or 0) >= rec.number
end

function M.finish()
    active, top = nil, nil
    return shown or not asked
end

-- Bytes that neither TCP nor UDP gets.  Decode As for the path's port counts here too.
function M.dissect_raw(rec, tvb, pinfo, tree)
    local other = M.of(rec).decode_as
    if other then return call(other, tvb, pinfo, tree, tvb:len()) ~= 0 end
    shown, M.waits = false, false
    framing.start_record(rec.number)
    if dissect(rec, tvb, pinfo, tree, false) then return shown end
    pcall(call_dissector, data, tvb, pinfo, tree)
    return false
end

return M
