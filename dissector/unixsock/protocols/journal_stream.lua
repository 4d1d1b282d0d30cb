-- What services write to the journal: seven lines with their name, unit and settings, then lines of text.
-- Source: systemd, sd_journal_stream_fd(3) and src/journal/journald-stream.c.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local protocol = host.load("protocols/lib/declare")({
    name = "unixsock.journal_stream", title = "systemd Journal Stream",
    paths = {
        "*/systemd/journal/stdout", "*/systemd/journal.*/stdout",
    },
})

local printable = host.load("util/text").printable
local framing = host.load("protocols/lib/framing")
local HEADER = {
    { "identifier", "Identifier" }, { "unit", "Unit" }, { "priority", "Priority" },
    { "level_prefix", "Level prefix" }, { "to_syslog", "Forward to syslog" }, { "to_kmsg", "Forward to kernel log" },
    { "to_console", "Forward to console" },
}
local MAX_HEADER = 8192 -- bytes

local F = {
    line = ProtoField.string("journal_stream.line", "Line"),
    level = ProtoField.string("journal_stream.level", "Level"),
}
for _, one in ipairs(HEADER) do F[one[1]] = ProtoField.string("journal_stream." .. one[1], one[2]) end
local proto = framing.proto(protocol, F)

-- The header is one message: the first of the connection, if that was seen from its start.
local function scan(text, from, last, state)
    if framing.is_first() then
        local lines = state.lines or 0
        while lines < #HEADER do
            local stop = text:find("\n", from + 1, true)
            if not stop then
                state.lines = lines
                if last - from > MAX_HEADER then return false end
                return nil, last
            end
            lines, from = lines + 1, stop
        end
        return from
    end
    local stop = text:find("\n", from + 1, true)
    if stop then return stop end
    return nil, last
end

local function show(message, pinfo, tree)
    local text = message:raw(0, message:len())
    local t = tree:add(proto, message:range(0, message:len()))
    local info
    if framing.is_first(true) then
        local number, values = 0, {}
        for at, line in text:gmatch("()([^\n]*)\n") do
            number = number + 1
            if not HEADER[number] then break end
            values[number] = printable(line)
            if line ~= "" then t:add(F[HEADER[number][1]], message:range(at - 1, #line), values[number]) end
        end
        info = ("stream of %s"):format(values[1] and values[1] ~= "" and values[1] or values[2] or "?")
    else
        local line = text:gsub("\n$", "")
        local level, rest = line:match("^<(%d)>()")
        if level then t:add(F.level, message:range(1, 1), level) end
        info = printable(line:sub(rest or 1))
        if #line >= (rest or 1) then t:add(F.line, message:range((rest or 1) - 1, #line - (rest or 1) + 1), info) end
    end
    t:append_text(", " .. info)
    framing.info(pinfo, "JOURNAL", info)
end

protocol.proto = framing.dissector(proto, scan, show, 0)
return protocol
