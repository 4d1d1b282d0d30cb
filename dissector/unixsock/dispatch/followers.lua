-- Questions and answers in what Wireshark's own dissectors show: as much of each protocol is read here as tells which
-- answer belongs to which question.  That is done in the first pass only; dispatch/exchanges.lua remembers it.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local exchanges = host.load("dispatch/exchanges")
local heuristics = host.load("dispatch/heuristics")
local hpack = host.load("protocols/lib/hpack")
local record = host.load("record/parse")
local attributes = host.load("util/attributes")

local M = {}
local unpack = Struct.unpack
local get_visited = attributes.getter("Pinfo", "visited")

-- What is kept of a conversation for the protocol `name`.
local function state_of(conversation, name)
    local state = conversation.followed
    if not state or state.name ~= name then
        state = { name = name }
        conversation.followed = state
    end
    return state
end

---------------------------------------------------------------------------------------------------
-- HTTP, by the first line of each message, where that begins a record

function M.follows_http(rec)
    local known = rec.shared.known
    return known and known.http or rec.way.conversation.content_name == "http"
end

local HEAD = 512 -- bytes that are looked at for the first line

local function http_answer(code, words, tree, pinfo)
    if code:byte() == 0x31 and code ~= "101" then return end -- an interim answer
    exchanges.answer_once(nil, code >= "400" and code .. " " .. words or nil, tree, pinfo)
end

-- Several messages in one record: those after the first line.
local function more_http(bytes, from, is_answer, tree, pinfo)
    if is_answer then
        for code, words in bytes:sub(from):gmatch("HTTP/1%.[01] (%d%d%d) ?([^\r\n]*)\r\n") do
            http_answer(code, words, tree, pinfo)
        end
    else
        for verb, path in bytes:sub(from):gmatch("%f[%u](%u+) ([/*h][^%s?]*)[^%s]* HTTP/1%.[01]\r\n") do
            exchanges.question("HTTP", verb .. " " .. path, nil, tree, pinfo)
        end
    end
end

-- Follows the record's payload in `bytes`.
function M.http(rec, bytes, tree, pinfo)
    if get_visited(pinfo) then return exchanges.again(tree, pinfo) end
    local start = rec.shared.header_len + 1
    local state, sock = state_of(rec.way.conversation, "http"), record.src_sock(rec.way)
    local head = bytes:sub(start, start + HEAD)
    if state[sock] then -- the beginning of a first line
        head, state[sock] = state[sock] .. head, nil
    end
    local code, words = head:match("^HTTP/1%.[01] (%d%d%d) ?([^\r\n]*)")
    local verb, path
    if code then
        http_answer(code, words, tree, pinfo)
    else
        verb, path = head:match("^(%u+) ([/*h][^%s?]*)")
        if verb then
            exchanges.question("HTTP", verb .. " " .. path, nil, tree, pinfo)
        elseif #head < heuristics.SHORT and heuristics.begins_http(head) then
            state[sock] = head
        end
    end
    if code or verb then
        local stop = bytes:find("\n", start, true)
        if stop and bytes:find("HTTP/1.", stop, true) then more_http(bytes, stop + 1, code ~= nil, tree, pinfo) end
    end
end

---------------------------------------------------------------------------------------------------
-- PostgreSQL: a letter, u32 length (big-endian) that counts itself, contents; the client's first message has no
-- letter.  Source: PostgreSQL, Frontend/Backend Protocol.

local MOST_BYTES = 512 -- that are looked at in a message

-- The first word of a statement.
local function first_word(sql)
    local word = sql:match("^%s*(%a+)")
    return word and word:sub(1, 32):upper() or "statement"
end

local function pg_error(text, at, stop)
    local words = text:sub(at, math.min(stop, at + MOST_BYTES))
    local code, message = ("\0" .. words):match("%zC([^%z]*)"), ("\0" .. words):match("%zM([^%z]*)")
    return ("%s %s"):format(code or "error", message or "")
end

local function pgsql(text, from_client, state, tree, pinfo)
    local at = 1
    while at + 4 <= #text do
        local letter = text:byte(at)
        local named = letter ~= 0
        local size = unpack(">I4", text, named and at + 1 or at) + (named and 1 or 0)
        if size < 4 or at + size - 1 > #text then break end
        local stop = at + size - 1
        if from_client then
            if letter == 0x51 then -- Q
                exchanges.question("PGSQL", first_word(text:sub(at + 5, at + MOST_BYTES)), nil, tree, pinfo)
            elseif letter == 0x50 then -- P, Parse: a name, the statement
                local sql = text:sub(at + 5, math.min(stop, at + MOST_BYTES)):match("^[^%z]*%z(.*)")
                state.word = sql and first_word(sql)
            elseif letter == 0x53 then -- S, Sync
                exchanges.question("PGSQL", state.word or "execute", nil, tree, pinfo)
                state.word = nil
            end
        elseif letter == 0x45 then -- E
            state.failure = pg_error(text, at + 5, stop)
        elseif letter == 0x5a then -- Z, ready for the next
            exchanges.answer_once(nil, state.failure, tree, pinfo)
            state.failure = nil
        end
        at = at + size
    end
end

---------------------------------------------------------------------------------------------------
-- MySQL: u24 length (little-endian), number, contents.  A command has the number 0, the first packet of its answer 1.
-- Source: MySQL Internals, Client/Server Protocol.

local COMMANDS = {
    false, "Init DB", "Query", "Field List", "Create DB", "Drop DB", "Refresh", "Shutdown", "Statistics",
    "Process Info", "Connect", "Process Kill", "Debug", "Ping", [0x11] = "Change User", [0x16] = "Prepare",
    [0x17] = "Execute", [0x1a] = "Reset Statement", [0x1b] = "Set Option", [0x1c] = "Fetch", [0x1f] = "Reset",
}

local function mysql(text, from_client, _, tree, pinfo)
    local at = 1
    while at + 4 <= #text do
        local size, number, first = unpack("<I3", text, at), text:byte(at + 3, at + 4)
        if size == 0 then break end
        if from_client and number == 0 and COMMANDS[first] then
            local method = COMMANDS[first]
            if first == 3 or first == 0x16 then method = first_word(text:sub(at + 5, at + MOST_BYTES)) end
            exchanges.question("MySQL", method, nil, tree, pinfo)
        elseif not from_client and number == 1 then
            local failure
            if first == 255 and at + 6 <= #text then
                local stop = math.min(at + 3 + size, at + MOST_BYTES)
                failure = ("%d %s"):format(unpack("<I2", text, at + 5), text:sub(at + 7, stop))
            end
            exchanges.answer_once(nil, failure, tree, pinfo)
        end
        at = at + 4 + size
    end
end

---------------------------------------------------------------------------------------------------
-- X11: requests are counted, and answers carry the low 16 bits of the count.  Source: X Window System Protocol, X.V11.

local WITH_REPLY = {
    [3] = "GetWindowAttributes", [14] = "GetGeometry", [15] = "QueryTree", [16] = "InternAtom", [17] = "GetAtomName",
    [20] = "GetProperty", [21] = "ListProperties", [23] = "GetSelectionOwner", [26] = "GrabPointer",
    [31] = "GrabKeyboard", [38] = "QueryPointer", [39] = "GetMotionEvents", [40] = "TranslateCoordinates",
    [43] = "GetInputFocus", [44] = "QueryKeymap", [47] = "QueryFont", [48] = "QueryTextExtents", [49] = "ListFonts",
    [50] = "ListFontsWithInfo", [52] = "GetFontPath", [73] = "GetImage", [83] = "ListInstalledColormaps",
    [84] = "AllocColor", [85] = "AllocNamedColor", [86] = "AllocColorCells", [87] = "AllocColorPlanes",
    [91] = "QueryColors", [92] = "LookupColor", [97] = "QueryBestSize", [98] = "QueryExtension",
    [99] = "ListExtensions", [101] = "GetKeyboardMapping", [103] = "GetKeyboardControl", [106] = "GetPointerControl",
    [108] = "GetScreenSaver", [110] = "ListHosts", [116] = "SetPointerMapping", [117] = "GetPointerMapping",
    [118] = "SetModifierMapping", [119] = "GetModifierMapping",
}
local EXTENSIONS = 128 -- opcodes of extensions begin here
local ERRORS = {
    "Request", "Value", "Window", "Pixmap", "Atom", "Cursor", "Font", "Match", "Drawable", "Access", "Alloc",
    "Colormap", "GContext", "IDChoice", "Name", "Length", "Implementation",
}

local function padded(size) return size + (-size) % 4 end

-- Requests from `at` on; gives where the first one begins that is not complete.
local function x11_requests(text, at, state, tree, pinfo)
    if not state.order then -- the connection's setup
        local order = ({ l = "<", B = ">" })[text:sub(at, at)]
        if not order then return nil end
        if at + 11 > #text then return at end
        local name, auth = unpack(order .. "I2I2", text, at + 6)
        local stop = at + 12 + padded(name) + padded(auth)
        if stop > #text + 1 then return at end
        state.order, state.count, at = order, 0, stop
    end
    while at + 3 <= #text do
        local size = unpack(state.order .. "I2", text, at + 2) * 4
        if size == 0 then -- a large one
            if at + 7 > #text then return at end
            size = unpack(state.order .. "I4", text, at + 4) * 4
            if size == 0 then return nil end
        end
        if at + size > #text + 1 then return at end
        state.count = (state.count + 1) % 65536
        local opcode, minor = text:byte(at, at + 1)
        local name = WITH_REPLY[opcode]
        if name then
            exchanges.question("X11", name, state.count, tree, pinfo)
        elseif opcode >= EXTENSIONS then
            local method = ("extension %d.%d"):format(opcode, minor)
            exchanges.question("X11", method, state.count, tree, pinfo, true)
        end
        at = at + size
    end
    return at
end

local function x11_answers(text, at, state, tree, pinfo)
    if not state.order then return nil end
    if not state.set_up then
        if at + 7 > #text then return at end
        local stop = at + 8 + unpack(state.order .. "I2", text, at + 6) * 4
        if stop > #text + 1 then return at end
        state.set_up, at = true, stop
    end
    while at + 31 <= #text do
        local kind, code = text:byte(at, at + 1)
        local size = 32
        if kind == 1 or kind % 128 == 35 then size = 32 + unpack(state.order .. "I4", text, at + 4) * 4 end
        if at + size > #text + 1 then return at end
        if kind <= 1 then
            local failure = kind == 0 and (ERRORS[code] or ("error %d"):format(code)) or nil
            exchanges.answer_once(unpack(state.order .. "I2", text, at + 2), failure, tree, pinfo)
        end
        at = at + size
    end
    return at
end

local function x11(text, from_client, state, tree, pinfo)
    if state.out_of_step then return end
    if not host.current.shared.from_start then state.out_of_step = true end
    local at = (from_client and x11_requests or x11_answers)(text, 1, state, tree, pinfo)
    -- What is left comes again with what follows it, if the dissector waits for it.
    if not at or at <= #text and pinfo.desegment_len == 0 then state.out_of_step = true end
end

---------------------------------------------------------------------------------------------------

-- HTTP/2 and gRPC: u24 length, type, flags, u32 stream, contents (big-endian).  An answer has its question's stream;
-- gRPC's outcome is in the fields after its last message.  Source: RFC 9113; gRPC over HTTP2.

local PREFACE = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
local DATA, HEADERS, RESET, CONTINUATION = 0, 1, 3, 9
local END_STREAM, END_HEADERS, PADDED, PRIORITY = 0x1, 0x4, 0x8, 0x20
local MOST_BLOCK, MOST_MARKS = 65536, 65536

local function has(flags, flag) return math.floor(flags / flag) % 2 == 1 end

-- A header block of a frame's contents from `at` to `stop`.
local function block_of(text, at, stop, flags)
    if has(flags, PADDED) then at, stop = at + 1, stop - (text:byte(at) or 0) end
    if has(flags, PRIORITY) then at = at + 5 end
    return text:sub(at, stop)
end

local function http2_question(stream, fields, state, tree, pinfo)
    local method, path, kind = fields[":method"], fields[":path"], fields["content-type"]
    if stream <= state.last_stream then return end -- fields that follow the body
    state.last_stream = stream
    path = path and path:match("^[^?]*") or "(path sent before the capture)"
    local grpc = kind and kind:find("^application/grpc") ~= nil
    if grpc then
        exchanges.question("gRPC", path, stream, tree, pinfo)
    else
        exchanges.question("HTTP2", (method or "?") .. " " .. path, stream, tree, pinfo)
    end
end

local function http2_answer(stream, fields, last, tree, pinfo)
    local status, outcome = fields[":status"], fields["grpc-status"]
    if status and status:byte() == 0x31 then return end -- an interim answer
    local failure
    if outcome and outcome ~= "0" then
        failure = ("gRPC status %s %s"):format(outcome, fields["grpc-message"] or "")
    elseif status and status >= "400" then
        failure = status
    end
    exchanges.answer_once(stream, failure, tree, pinfo, not last)
end

-- Takes a whole header block; gives how many of its fields refer to what was sent before the capture.
local function http2_headers(block, stream, last, from_client, side, state, tree, pinfo)
    local fields, unknown = hpack.fields(side.decoder, block)
    if from_client then
        http2_question(stream, fields, state, tree, pinfo)
    else
        http2_answer(stream, fields, last, tree, pinfo)
    end
    return unknown
end

local function http2(text, from_client, state, tree, pinfo)
    local name = from_client and "client" or "server"
    local side = state[name] or { decoder = hpack.new(), open = false }
    state[name], state.last_stream = side, state.last_stream or 0
    local at, missing = 1, 0
    if text:sub(1, #PREFACE) == PREFACE then at = #PREFACE + 1 end
    while at + 8 <= #text do
        local size, kind, flags, stream = unpack(">I3", text, at), text:byte(at + 3), text:byte(at + 4),
            unpack(">I4", text, at + 5) % 2147483648
        local stop = at + 8 + size
        if stop > #text then break end
        if kind == HEADERS then
            side.open = { block_of(text, at + 9, stop, flags), stream = stream, last = has(flags, END_STREAM) }
            side.open.size = size
        elseif kind == CONTINUATION and side.open then
            side.open[#side.open + 1], side.open.size = text:sub(at + 9, stop), side.open.size + size
            if side.open.size > MOST_BLOCK then side.open = false end
        elseif kind == RESET and size == 4 and not from_client and exchanges.waits(stream) then
            local code = unpack(">I4", text, at + 9)
            local failure = code ~= 0 and ("stream reset, code %d"):format(code) or nil
            exchanges.answer_once(stream, failure, tree, pinfo)
        elseif kind == DATA and not from_client and has(flags, END_STREAM) then
            exchanges.done(stream, pinfo)
        end
        if side.open and (kind == HEADERS or kind == CONTINUATION) and has(flags, END_HEADERS) then
            local open = side.open
            side.open = false
            missing = missing
                + http2_headers(table.concat(open), open.stream, open.last, from_client, side, state, tree, pinfo)
        end
        at = stop + 1
    end
    if missing == 0 then return end
    state.marks, state.mark_count = state.marks or {}, (state.mark_count or 0) + 1
    if state.mark_count <= MOST_MARKS then state.marks[host.current.number] = missing end
    M.mark(missing, tree)
end

function M.mark(missing, tree)
    local words = missing == 1 and "1 header field refers" or ("%d header fields refer"):format(missing)
    tree:add_proto_expert_info(exchanges.hpack, words .. " to what was sent before the capture")
end

---------------------------------------------------------------------------------------------------
-- LDAP: BER; an answer has its question's number.  Source: RFC 4511.

local LDAP_QUESTIONS = {
    [0x60] = "bind", [0x63] = "search", [0x66] = "modify", [0x68] = "add", [0x4a] = "delete", [0x6c] = "modify DN",
    [0x6e] = "compare", [0x77] = "extended",
}
-- Answers: whether they are the last to their question.
local LDAP_ANSWERS = {
    [0x61] = true, [0x64] = false, [0x65] = true, [0x67] = true, [0x69] = true, [0x6b] = true, [0x6d] = true,
    [0x6f] = true, [0x73] = false, [0x78] = true, [0x79] = false,
}
-- Results that are no errors: success, compareFalse, compareTrue, referral, saslBindInProgress.
local LDAP_FINE = { [0] = true, [5] = true, [6] = true, [10] = true, [14] = true }
local LDAP_WORDS = {
    [1] = "operationsError", [2] = "protocolError", [3] = "timeLimitExceeded", [4] = "sizeLimitExceeded",
    [7] = "authMethodNotSupported", [8] = "strongerAuthRequired", [11] = "adminLimitExceeded",
    [12] = "unavailableCriticalExtension", [13] = "confidentialityRequired", [16] = "noSuchAttribute",
    [17] = "undefinedAttributeType", [18] = "inappropriateMatching", [19] = "constraintViolation",
    [20] = "attributeOrValueExists", [21] = "invalidAttributeSyntax", [32] = "noSuchObject", [33] = "aliasProblem",
    [34] = "invalidDNSyntax", [48] = "inappropriateAuthentication", [49] = "invalidCredentials",
    [50] = "insufficientAccessRights", [51] = "busy", [52] = "unavailable", [53] = "unwillingToPerform",
    [64] = "namingViolation", [65] = "objectClassViolation", [66] = "notAllowedOnNonLeaf", [68] = "entryAlreadyExists",
    [80] = "other",
}

-- The tag at `at`, where its contents begin, and where they end; nothing if that is cut or no BER.
local function ber(text, at)
    local tag, size = text:byte(at, at + 1)
    if not size then return nil end
    local from = at + 2
    if size >= 128 then
        local count = size - 128
        if count == 0 or count > 4 or from + count - 1 > #text then return nil end
        size = unpack(">I" .. count, text, from)
        from = from + count
    end
    return tag, from, from + size - 1
end

local function ber_number(text, at)
    local tag, from, stop = ber(text, at)
    if tag ~= 2 and tag ~= 10 or stop > #text or stop < from or stop - from > 3 then return nil end
    return unpack(">I" .. stop - from + 1, text, from), stop + 1
end

local function ldap(text, from_client, _, tree, pinfo)
    local at = 1
    while at <= #text do
        local tag, from, stop = ber(text, at)
        if tag ~= 0x30 or stop > #text then break end
        local number, after = ber_number(text, from)
        local operation, body = ber(text, after or #text + 1)
        if not operation then break end
        if from_client then
            local method = LDAP_QUESTIONS[operation]
            if method then exchanges.question("LDAP", method, number, tree, pinfo) end
        elseif LDAP_ANSWERS[operation] ~= nil then
            local last, failure = LDAP_ANSWERS[operation], nil
            local result = last and ber_number(text, body)
            if result and not LDAP_FINE[result] then
                failure = ("%d %s"):format(result, LDAP_WORDS[result] or "error")
            end
            exchanges.answer_once(number, failure, tree, pinfo, not last)
        end
        at = stop + 1
    end
end

---------------------------------------------------------------------------------------------------

local FOLLOWERS = { pgsql = pgsql, mysql = mysql, x11 = x11, http2 = http2, ldap = ldap }

-- Called after Wireshark's dissector `name` was given the payload in `tvb`, from the beginning of a message on.
function M.follow(name, tvb, pinfo, tree)
    local follower = FOLLOWERS[name]
    if not follower then return end
    local way = host.current.way
    if get_visited(pinfo) then
        local marks = way.conversation.followed and way.conversation.followed.marks
        if marks and marks[host.current.number] then M.mark(marks[host.current.number], tree) end
        return exchanges.again(tree, pinfo)
    end
    local state = state_of(way.conversation, name)
    if state.lost then -- what was known of the connection holds no more
        state = { name = name, marks = state.marks, mark_count = state.mark_count, last_stream = state.last_stream,
            out_of_step = true }
        way.conversation.followed = state
    end
    follower(tvb:raw(0, tvb:len()), not way.src_is_server, state, tree, pinfo)
end

return M
