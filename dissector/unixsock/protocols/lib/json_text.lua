-- JSON in a stream: where a document ends, and what the members of an object are.  Each byte is looked at once.
-- Source: RFC 8259; JSON-RPC 2.0; Language Server Protocol, Base Protocol.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local MAX = host.load("protocols/lib/framing").MAX
local M = {}

local find, byte, unpack = string.find, string.byte, Struct.unpack
local QUOTE, BACKSLASH = 34, 92
local CLOSING = { [123] = 125, [91] = 93 } -- of "{" and "["
local MAX_DEPTH = 512
local MAX_HEAD = 4096 -- bytes of headers before a document
local SEPARATORS = "[^%s%z\30\255]" -- what is none: white space, NUL, RS (RFC 7464), the guest agent's 0xff

---------------------------------------------------------------------------------------------------
-- Where a document ends

-- What comes before a document, of which the first byte that is no separator is at `first`: the end if it tells the
-- length, nil if more bytes are needed, false if there is no such head.
local function after_headers(text, first, last)
    local word = text:sub(first, first + 7)
    if word ~= ("Content-"):sub(1, #word) then return false end
    local _, stop = find(text, "\r\n\r\n", first, true)
    if not stop then return last - first < MAX_HEAD and nil end
    local digits = stop - first < MAX_HEAD and text:sub(first, stop):lower():match("content%-length:%s*(%d+)\r\n")
    if not digits or #digits > 9 then return false end
    return stop + tonumber(digits)
end

-- The same for a length before it: of four bytes in either order; Discord's, which follows an opcode, in the last
-- four of eight.
local function after_length(text, from, last)
    local left = last - from
    local a, b, c, d, e = byte(text, from + 1, from + 5)
    if left >= 5 and CLOSING[e] then
        local size = a == 0 and unpack(">I4", text, from + 1) or d == 0 and unpack("<I4", text, from + 1) or 0
        return size >= 2 and size <= MAX and from + 4 + size
    elseif left >= 9 and a <= 4 and b + c + d == 0 and CLOSING[byte(text, from + 9)] then
        local size = unpack("<I4", text, from + 5)
        return size >= 2 and size <= MAX and from + 8 + size
    end
    return false
end

-- Begins at `from`: gives the end of a document whose length is stated, of separators or of a line that is no JSON, or
-- nil and how far has been looked, or false and where the document begins.
local function begin(text, from, last, state)
    local stop = after_length(text, from, last)
    if stop then return stop end
    local first = find(text, SEPARATORS, from + 1)
    local a = byte(text, from + 1)
    if a < 9 and last - from < 9 then return nil, from end -- perhaps a length that is cut
    if not first then return last end
    if CLOSING[byte(text, first)] then return false, first - 1 end
    stop = after_headers(text, first, last)
    if stop or stop == nil then return stop, first - 1 end
    stop = find(text, "\n", first, true)
    if stop then return stop end
    if last - from < 9 then return nil, from end
    state.line = true
    return nil, last
end

-- For framing.lua: the end of a JSON document, with its separators and what tells its length; or of a line of text.
function M.scan(text, from, last, state)
    if state.line then
        local stop = find(text, "\n", from + 1, true)
        if stop then return stop end
        return nil, last
    end
    if not state.depth then
        local stop, at = begin(text, from, last, state)
        if stop ~= false then return stop, at end
        state.depth, from = 0, at
    end
    local depth, quoted, at = state.depth, state.quoted, from + 1
    while true do
        if quoted then
            local found = find(text, '["\\]', at)
            if not found or found == last and byte(text, found) == BACKSLASH then
                state.depth, state.quoted = depth, true
                return nil, found and found - 1 or last
            end
            quoted, at = byte(text, found) == BACKSLASH, found + 1
            if quoted then at = found + 2 end
        else
            local found = find(text, '[{}%[%]"]', at)
            if not found then
                state.depth, state.quoted = depth, false
                return nil, last
            end
            local mark = byte(text, found)
            at = found + 1
            if mark == QUOTE then
                quoted = true
            elseif CLOSING[mark] then
                if depth == MAX_DEPTH then return false end
                depth = depth + 1
                state[depth] = CLOSING[mark]
            else
                if state[depth] ~= mark then return false end
                depth = depth - 1
                if depth == 0 then
                    local following = find(text, SEPARATORS, at)
                    return following and following - 1 or last
                end
            end
        end
    end
end

---------------------------------------------------------------------------------------------------
-- What is in it

local MOST_MEMBERS = 64

-- Where the string that begins at `at` ends, or nil.
local function string_end(text, at)
    at = at + 1
    while true do
        local found = find(text, '["\\]', at)
        if not found then return nil end
        if byte(text, found) == QUOTE then return found end
        at = found + 2
    end
end

-- The members of the object that begins at `first` in `text`, of which the first MOST_MEMBERS: by the name { kind =
-- "string", "number" (also true, false, null), "object" or "array", text = what it is, at = where }.  The second value
-- is where the object ends, or nil.
function M.members(text, first)
    local members, count, depth, at = {}, 0, 0, first
    while true do
        local found = find(text, '[{}%[%]"]', at)
        if not found then return members end
        local mark = byte(text, found)
        at = found + 1
        if mark == QUOTE then
            local stop = string_end(text, found)
            if not stop then return members end
            at = stop + 1
            local value = depth == 1 and count < MOST_MEMBERS and text:match("^%s*:%s*()", at)
            if value then
                local name, kind = text:sub(found + 1, math.min(stop - 1, found + 64)), byte(text, value)
                count = count + 1
                if kind == QUOTE then
                    local value_stop = string_end(text, value)
                    if not value_stop then return members end
                    members[name] = { kind = "string", text = text:sub(value + 1, value_stop - 1), at = value }
                    at = value_stop + 1
                elseif CLOSING[kind] then
                    members[name] = { kind = kind == 123 and "object" or "array", at = value }
                    at = value
                else
                    members[name] = { kind = "number", text = text:match("^[%w+.-]*", value), at = value }
                    at = value
                end
            end
        elseif CLOSING[mark] then
            depth = depth + 1
        else
            depth = depth - 1
            if depth <= 0 then return members, found end
        end
    end
end

local function text_of(member, kind)
    return member and (not kind or member.kind == kind) and member.text or nil
end

-- What an error member says, or nil if it says that there is none.
local function failure_of(text, member)
    if not member then return nil end
    if member.kind == "object" then
        local inside = M.members(text, member.at)
        local code = text_of(inside.code) or text_of(inside.class) or text_of(inside.error)
        local words = text_of(inside.message, "string") or text_of(inside.desc, "string")
            or text_of(inside.details, "string")
        return code and words and code .. " " .. words or code or words or "error"
    end
    local words = member.text or "error"
    if words == "null" or words == "success" or words == "false" or words == "" then return nil end -- mpv, OVSDB
    return words
end

-- The method that a request names: JSON-RPC's, QMP's, the debug adapters', Kea's; mpv's is the first of an array.
local function method_of(text, m)
    local command = m.command
    if command and command.kind == "array" then return text:match('^%[%s*"([^"\\]*)"', command.at) end
    return text_of(m.method, "string") or text_of(m.execute, "string") or text_of(m["exec-oob"], "string")
        or text_of(command, "string")
end

-- What kind of message the object at `first` is: { kind = "request", "notification", "answer" or "event", or nil,
-- method, id, failure }; the second value is where it ends, or nil.
function M.message(text, first)
    local m, stop = M.members(text, first)
    local id = text_of(m.id) or text_of(m.request_id)
    if id == "null" then id = nil end
    local kind = text_of(m.type, "string")
    local event = text_of(m.event, "string")
    local told = { id = id, method = method_of(text, m) }
    if kind == "response" and m.request_seq then -- debug adapters
        told.kind, told.id = "answer", text_of(m.request_seq)
        if text_of(m.success) == "false" then told.failure = text_of(m.message, "string") or "error" end
    elseif kind == "request" and m.seq then
        told.kind, told.id = "request", text_of(m.seq)
    elseif event then
        told.kind, told.method = "event", event
    elseif told.method then
        -- Without an id JSON-RPC wants no answer; QMP and Kea have no ids, and answer in order.
        told.kind = (id or m.execute or m.command) and "request" or "notification"
    elseif m.result or m["return"] or m.error or m.QMP then
        told.kind = m.QMP and "event" or "answer"
        told.method = m.QMP and "QMP greeting"
        told.failure = failure_of(text, m.error)
        local code = m.result and m.text and text_of(m.result, "number")
        if code == "1" or code == "2" then told.failure = text_of(m.text) or "error" end -- Kea
    end
    return told, stop
end

return M
