-- Unix domain sockets for Wireshark: dissects the records of the extcap interface "unixsock".
--
-- docs/format.md describes the record; unixsock/record/ parses and shows it.  A stream's payload goes to Wireshark's
-- own "tcp" dissector as a synthetic segment (unixsock/transport/stream.lua), a datagram's straight to its protocol
-- (unixsock/transport/datagram.lua).
-- Everything shown follows from the record alone, so that one pass, two passes and a click in the packet
-- list agree.  Runs unchanged on Wireshark 4.0 (Lua 5.2) to 4.6 (Lua 5.4).

local VERSION = "0.2.0"

if Dissector.get("unixsock") then -- a second copy, in another plugin folder
    if package.loaded["unixsock.version"] ~= VERSION and report_failure then
        report_failure(("Another version of the dissector for Unix sockets is loaded already; %s, version %s, is not:"
            .. " remove one of them from Wireshark's plugin folders."):format(debug.getinfo(1, "S").source, VERSION))
    end
    return
end
package.loaded["unixsock.version"] = VERSION -- for other copies, which may have other globals

if set_plugin_info then
    set_plugin_info({ version = VERSION, author = "unixsock-bpf", description = "Unix domain sockets" })
end

-- Wireshark makes several objects for each packet, and Lua's collector gives them back: by default late and in such
-- small steps that memory grows to a multiple of what is needed, malloc() has to search for each piece, and the
-- processor's cache is too small.  Earlier and in larger steps, tshark takes 10 to 30 % less time (4.0, 4.4, 4.6).
collectgarbage("setpause", 120)
collectgarbage("setstepmul", 1000)

---------------------------------------------------------------------------------------------------
-- Where the other files are

-- The folder of this very file: next to it, or next to what a symbolic link points to; or next to the folder of
-- plugins, all of whose files Wireshark would run by themselves (docs/viewer.md).
local function folder()
    local script = debug.getinfo(1, "S").source:gsub("^@", "")
    local function beside(file)
        local here = file:match("^(.*)[/\\][^/\\]*$") or "."
        for _, path in ipairs { here .. "/unixsock/", here .. "/../unixsock/" } do
            local probe = io.open(path .. "util/errno.lua")
            if probe then
                probe:close()
                return path
            end
        end
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
-- The protocol, its preferences and its parts

local proto = Proto("unixsock", "Unix Domain Socket")

local prefs = proto.prefs
prefs.reassemble = Pref.bool("Streams as TCP, datagrams as UDP", true,
    "Hand streams to Wireshark's TCP dissector, which reassembles them, and datagrams to UDP's: for Follow Stream"
    .. " and the lists of conversations")
prefs.columns = Pref.bool("Processes as source and destination", true,
    "Show comm[pid] in the columns; off: the sockets' pseudo addresses and their names")
prefs.path_in_info = Pref.bool("Path in Info", true,
    "Begin Info with the path; off: for profiles in which it has a column of its own")
prefs.paths = Pref.string("Protocols by path", "",
    "GLOB=PROTOCOL entries separated by spaces or semicolons, tried before the file unixsock_paths and the built-in"
    .. " table; PROTOCOL is a dissector's name or filter name, tcp/PORT, udp/PORT, heur/LIST, or 'data' for none;"
    .. " PROTOCOL@lines (nul, json, u32be, ...) cuts the bytes into messages for it")
prefs.heuristics = Pref.bool("Try Wireshark's TCP heuristics", false,
    "Offer payload that neither the table nor its content tells to Wireshark's heuristic dissectors")

host.proto, host.prefs = proto, {} -- see read_prefs()
local attributes = host.load("util/attributes")
local layout = host.load("record/format")
local text = host.load("util/text")
local record = host.load("record/parse")
host.current = record.current
local conversations = host.load("transport/conversations")
local tree_of = host.load("record/tree")
local exchanges = host.load("dispatch/exchanges")
local payload = host.load("dispatch/payload")
local followers = host.load("dispatch/followers")
local addresses = host.load("transport/addresses")
local stream = host.load("transport/stream")
local datagram = host.load("transport/datagram")
host.load("ui/statistics")
host.load("ui/response_times")
host.load("ui/waits")
local EVENT, FLAG, SOCKET_TYPE = layout.EVENT, layout.FLAG, layout.SOCKET_TYPE

-- The preferences' values: Wireshark searches its list at each look at proto.prefs.
local function read_prefs()
    for _, name in ipairs({ "reassemble", "columns", "path_in_info", "paths", "heuristics" }) do
        host.prefs[name] = prefs[name]
    end
end

local first_record -- the frame of the file's first record

local function start_file()
    read_prefs()
    conversations.reset()
    payload.reset()
    payload.read_paths()
    exchanges.reset()
    first_record = nil
    datagram.reset()
    addresses.reset()
    record.forget() -- records know their conversation, and the preferences' choice for their path
end

function proto.init() start_file() end
function proto.prefs_changed()
    read_prefs()
    payload.reset()
    payload.read_paths()
    record.forget()
end

---------------------------------------------------------------------------------------------------
-- Info

local NOTABLE = {
    { FLAG.TRUNCATED, "truncated" }, { FLAG.OOB, "out of band" }, { FLAG.UNORDERED, "unordered" },
}

-- What else came with a message.
local function extras(rec)
    local words = ""
    for _, one in ipairs(NOTABLE) do
        if layout.has(rec.shared.flags, one[1]) then words = words .. "  " .. one[2] end
    end
    local count = rec.shared.el.fds_count
    if count then
        words = ("%s  %d descriptor%s"):format(words, count, count == 1 and "" or "s")
        local kinds = rec.shared.el.fd_kinds
        if kinds then words = words .. " (" .. kinds .. ")" end
    end
    return words
end

local glance = text.glance

-- For the record, given its bytes too; `part` describes a payload.
local function info_text(rec, bytes, part)
    local event, shared, caplen = rec.event, rec.shared, rec.caplen
    local words, el, header_len = shared.about, shared.el, shared.header_len
    if event == EVENT.DATA then
        if not shared.extras then shared.extras = extras(rec) end
        return words .. "  len=" .. rec.len .. (rec.offset > 0 and "  offset=" .. rec.offset or "") .. shared.extras
            .. part .. (caplen > 0 and "  " .. glance(bytes, header_len + 1, header_len + caplen) or "")
    elseif event == EVENT.LOST then
        return words .. "  " .. (el.lost or "records lost")
    elseif event == EVENT.SEND_ERROR then
        return words .. "  send failed: " .. (el.error or "unknown error") .. "  len=" .. rec.len
    elseif event == EVENT.REFUSED then
        return words .. "  " .. tree_of.refusal(shared)
    elseif event == EVENT.UNDELIVERED then
        return words .. "  not delivered  len=" .. rec.len
    elseif event == EVENT.SHUTDOWN then
        return words .. "  " .. (layout.SHUTDOWN_HOW[el.how] or "shutdown")
    elseif event == EVENT.CONNECT and layout.has(shared.flags, FLAG.SOCKETPAIR) then
        return words .. "  socket pair"
    end
    return words .. "  " .. (layout.EVENTS[event] or ("event " .. event))
end

local TRANSPORT = { TCP = true, UDP = true }

-- Fills the columns of a record, given its bytes too, unless the dissector that `handled` the bytes has done so.
-- `waits`: the bytes wait for others.
local function put_info(cols, handled, rec, bytes, waits)
    local protocol = handled and tostring(cols.protocol) or "TCP"
    -- A dissector that took the bytes and showed nothing, or only its name, leaves the TCP or UDP ports in Info.
    local added = TRANSPORT[protocol] and "" or protocol:match("^[TU][CD]P(/.*)")
    local info = handled and tostring(cols.info)
    if not added and info ~= "" then return end
    if added then cols.protocol = "UNIX" .. added end
    local begun = rec.caplen > 0 and waits -- the TCP dissector shows that up to 4.2, and from then on:
        or info and (info:find("TCP segment of a reassembled PDU") or info:find("TCP PDU reassembled in"))
    cols.info = rec.wrong and "Malformed: " .. rec.wrong
        or info_text(rec, bytes, (begun and "  (part of a message)" or "") .. payload.note_on(rec))
end

---------------------------------------------------------------------------------------------------
-- The dissector

-- Shows a packet that is no known record; `wrong`: why.
local function unreadable(tvb, pinfo, tree, wrong, is_version)
    local length = tvb:len()
    local t = tree:add(proto, length > 0 and tvb:range(0, length) or tvb)
    local experts = tree_of.experts
    t:add_proto_expert_info(is_version and experts.version or experts.malformed, wrong)
    if is_version then t:add(tree_of.fields.version, tvb:range(0, 1)) end
    pinfo.cols.protocol, pinfo.cols.info = "UNIX", (is_version and "" or "Malformed: ") .. wrong
    return length
end

local self, no_address -- of the first packet: there is none, for the record is all there is

-- Functions instead of methods: Wireshark looks a method up anew for each call, which costs as much again.
local raw, referenced, add = Tvb.raw, TreeItem.referenced, TreeItem.add
local get_cols, get_number = attributes.getter("Pinfo", "cols"), attributes.getter("Pinfo", "number")
local get_text = attributes.getter("TreeItem", "text")
local set_src, set_dst = attributes.setter("Pinfo", "src"), attributes.setter("Pinfo", "dst")
local set_net_src, set_net_dst = attributes.setter("Pinfo", "net_src"), attributes.setter("Pinfo", "net_dst")
local of_text = addresses.of_text
local choices, read, dissect_stream = host.prefs, record.read, stream.dissect
local start_exchanges = exchanges.start_record
local follows_http, http = followers.follows_http, followers.http
local FILLED, DIRECT, tostring = payload.FILLED, payload.DIRECT, tostring
local DATA, LOST, SEND_ERROR, STREAM = EVENT.DATA, EVENT.LOST, EVENT.SEND_ERROR, SOCKET_TYPE.STREAM
local UNDELIVERED, REFUSED = EVENT.UNDELIVERED, EVENT.REFUSED

function proto.dissector(tvb, pinfo, tree)
    local bytes = raw(tvb)
    local rec, wrong, is_version = read(bytes)
    if not rec then return unreadable(tvb, pinfo, tree, wrong, is_version) end
    if not self then self, no_address = Dissector.get("unixsock"), pinfo.src end
    local event, shared = rec.event, rec.shared
    rec.number = get_number(pinfo)
    start_exchanges()

    local cols, asked = get_cols(pinfo), referenced(tree, self) -- true, too, where the tree is shown
    rec.asked = asked
    first_record = first_record or rec.number
    local remarkable = shared.remarkable or rec.wrong or event == SEND_ERROR or event == UNDELIVERED
        or event == REFUSED or rec.number == first_record
    local t
    if asked or remarkable then
        t = tree:add(proto, tvb:range(0, shared.header_len))
        if asked then tree_of.add_fields(t, tvb, rec, bytes) end
        if remarkable then tree_of.add_experts(t, rec) end
        if rec.number == first_record then tree_of.add_wrong_paths(t, payload.wrong_paths) end
        if event == LOST or shared.truncated then exchanges.lost(pinfo) end
    elseif get_text(tree) then -- there is a tree, which has what it hangs on
        t = add(tree, proto) -- for the protocol hierarchy
    end
    -- Wireshark needs no columns of the selected packet; Follow finds its conversation by the sockets' addresses.
    local named = choices.columns and not (asked and tree.visible and tostring(cols.protocol) == "(protocol)")
    local src = named and of_text(shared.src_text, pinfo, t or tree)
    local dst = src and of_text(shared.dst_text, pinfo, t or tree)

    local handled = false -- and nothing was queued by a failed or lost send
    if event == LOST or event == SEND_ERROR or event == UNDELIVERED or event == REFUSED then
        handled = false
    elseif shared.type == STREAM then
        handled = dissect_stream(rec, bytes, tvb, pinfo, tree, t)
        if event == DATA and rec.caplen > 0 and follows_http(rec) then http(rec, bytes, t or tree, pinfo) end
    elseif event == DATA then
        handled = datagram.dissect(rec, bytes, tvb, pinfo, tree, t, tree_of.fields["reassembled.len"])
    end
    if handled == DIRECT then
        if tostring(cols.protocol) == "TCP" then
            payload.waits_directly()
            put_info(cols, false, rec, bytes, true)
        end
    elseif handled ~= FILLED then
        put_info(cols, handled, rec, bytes, payload.waits)
    end
    if dst then -- Flow Graph has its lines from here
        set_src(pinfo, src)
        set_dst(pinfo, dst)
        set_net_src(pinfo, src)
        set_net_dst(pinfo, dst)
    elseif named then
        set_src(pinfo, no_address)
        set_dst(pinfo, no_address)
        cols.src = shared.src_text
        cols.dst = shared.dst_text
    end
    return #bytes
end
