-- Finds where HTTP/1 messages begin and end.  Wireshark's HTTP dissector hands their bodies to other dissectors, each
-- of which adds layers to the packet, and at 500 (its preference gui.max_tree_depth) Wireshark gives the packet up as
-- "Dissector bug": a record with many bodies has to be cut before that.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local M = {}

local MOST_BODIES = 120
M.LEAST = MOST_BODIES * 16 -- bytes that more messages have
local MAX_DIGITS = 9 -- of a length: a longer one is more than Wireshark reassembles

-- Where the blank line ends after which a head that begins at `from` is over; nil if it is not there.
local function after_head(text, from)
    local _, stop = text:find("\n\r?\n", from)
    return stop and stop + 1
end

-- Where the chunks end that begin at `from`, and their trailer; nil if the end is not there, false if these are none.
local function after_chunks(text, from)
    local at = from
    while true do
        local line_end = text:find("\n", at, true)
        if not line_end then return nil end
        local digits = text:match("^%x+", at)
        if not digits or #digits > MAX_DIGITS then return false end
        local size = tonumber(digits, 16)
        if size == 0 then
            local blank = text:match("^\r?\n()", line_end + 1)
            return blank or after_head(text, line_end + 1)
        end
        at = line_end + 1 + size
        if at > #text then return nil end
        at = text:match("^\r?\n()", at) or at
    end
end

-- The end of the message that begins at `from`, and whether it has a body.  Nil if the end is not there, and how
-- many bytes are missing, if that is known; false if there is no message.
local function find_end(text, from)
    if not text:find("^HTTP/", from) and not text:find("^[%u_-]+ ", from) then return false end
    local body = after_head(text, from)
    if not body then return nil end
    local head = text:sub(from, body - 1):lower()
    if body > #text then body = #text + 1 end
    local status = head:match("^http/[^ \n]* *(%d*)")
    if status and (status:find("^1") or status == "204" or status == "304") then return body, false end
    local answers_head = status and text:find("^HTTP/", body) -- unless that is a body like a head
    if head:find("\ntransfer%-encoding:[^\n]*chunked") then
        if answers_head then return body, false end
        local stop = after_chunks(text, body)
        return stop, stop and true
    end
    local digits
    for length in head:gmatch("\ncontent%-length:[ \t]*%+?0*(%d+)") do digits = length end
    if digits and #digits > MAX_DIGITS then return nil end
    if status and not digits then digits = #text + 1 - body end -- until the connection ends
    local size = tonumber(digits or 0)
    local stop = body + size
    if answers_head and stop ~= #text + 1 and not text:find("^HTTP/", stop) then return body, false end
    if stop > #text + 1 then return nil, stop - #text - 1 end
    return stop, size > 0
end

-- Whether `text` may have too many messages for one packet: each has a blank line.
function M.many(text)
    local count = 0
    for _, blank in ipairs({ "\n\r\n", "\n\n" }) do
        local at = 1
        while count <= MOST_BODIES do
            local _, stop = text:find(blank, at, true)
            if not stop then break end
            at, count = stop + 1, count + 1
        end
    end
    return count > MOST_BODIES
end

-- Where `text`, which begins with a message, has to be cut: the offset from which messages are too many; how many of
-- those are whole, and the offset where they end; and of the last one's bytes, how many are missing, if known.  Nil
-- if there are not too many.
function M.cut(text)
    local at, bodies, offset, count = 1, 0, nil, 0
    while at <= #text do
        local stop, more = find_end(text, at)
        if not stop then
            if not offset then return nil end
            if stop == false then at, count = #text + 1, count + 1 end
            return offset, count, at - 1, more
        end
        if more and bodies == MOST_BODIES and not offset then offset = at - 1 end
        if offset then
            count = count + 1
        elseif more then
            bodies = bodies + 1
        end
        at = stop
    end
    if offset then return offset, count, #text end
end

return M
