-- Conversations with processes and paths: `tshark -z unixsock,conv`, and a window in the Statistics menu that sorts
-- and copies.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local TYPES = host.load("record/format").TYPES
local EVENT = host.load("record/format").EVENT
local process = host.load("util/text").process
local rows_in = host.load("ui/rows")

-- Collects conversations from the packets, and returns them as text.
local function collector()
    local M = {}
    local rows, order

    function M.reset() rows, order = {}, {} end

    M.reset()

    local function row(index)
        local r = rows[index]
        if not r then
            r = { index = index, packets = 0, bytes = { 0, 0 }, lost = 0, lost_bytes = 0, fds = 0 }
            rows[index] = r
            order[#order + 1] = r
        end
        return r
    end

    -- Taps are called right after a packet's dissection: the record is the one dissected last.  (A Field would
    -- make Wireshark build every packet's tree, statistics or not.)
    function M.packet(pinfo)
        local rec = host.current
        if not rec or rec.number ~= pinfo.number then return end
        local r, el = row(rec.way.conversation.index), rec.shared.el
        -- Side 1 is the client where that is known.
        local from, to = 1, 2
        if rec.way.src_is_server then from, to = 2, 1 end
        r.type = r.type or TYPES[rec.shared.type]
        r.path = r.path or rec.shared.path
        r[from] = process(el.src_comm, rec.shared.src_pid) or r[from]
        r[to] = process(el.dst_comm, rec.shared.dst_pid) or r[to]
        r.packets = r.packets + 1
        if rec.event == EVENT.DATA and rec.offset == 0 then r.bytes[from] = r.bytes[from] + rec.len end
        r.lost = r.lost + (el.lost_messages or 0)
        r.lost_bytes = r.lost_bytes + (el.lost_bytes or 0)
        r.fds = r.fds + (el.fds_count or 0)
        local now = pinfo.rel_ts
        r.first = r.first or now
        r.last = now
    end

    function M.rows() return order end

    return M
end

local HEADS = {
    "Index", "Type", "Client", "Server", "Packets", "Bytes ->", "Bytes <-", "First", "Last",
    "Lost", "Bytes lost", "Fds", "Path",
}

-- A row's values in the order of HEADS.
local function values(r)
    return r.index, r.type or "?", r[1] or "?", r[2] or "?", r.packets, r.bytes[1], r.bytes[2], r.first, r.last,
        r.lost, r.lost_bytes, r.fds, r.path or "(unnamed)"
end

-- A table with a line for each conversation, as `head` and `row` format it.
local function lines(rows, head, row)
    local text = { head:format(table.unpack(HEADS)) }
    for _, r in ipairs(rows) do text[#text + 1] = row:format(values(r)) end
    return table.concat(text, "\n")
end

local function for_terminal(rows)
    return lines(rows, "%6s %-9s %-22s %-22s %9s %12s %12s %11s %11s %6s %12s %6s  %s",
        "%6d %-9s %-22s %-22s %9d %12.0f %12.0f %11.6f %11.6f %6.0f %12.0f %6d  %s")
end

local function for_clipboard(rows)
    return lines(rows, ("%s\t"):rep(#HEADS - 1) .. "%s",
        "%d\t%s\t%s\t%s\t%d\t%.0f\t%.0f\t%.6f\t%.6f\t%.0f\t%.0f\t%d\t%s") .. "\n"
end

local UNITS = { "", "k", "M", "G", "T" }

-- A count in at most six places.
local function short(count)
    local unit = 1
    while count >= 99999.5 and unit < #UNITS do count, unit = count / 1000, unit + 1 end
    return ("%.0f%s"):format(count, UNITS[unit])
end

-- `text` in `width` places; of a longer one the end of the name goes, not the pid.
local function fitted(text, width)
    if #text <= width then return text .. (" "):rep(width - #text) end
    local pid = text:match("%[%d+%]$") or ""
    return text:sub(1, width - #pid - 1):gsub("[\128-\255]*$", "") .. "~" .. pid
end

-- Two lines for each: Wireshark's text window is 72 letters wide as it opens, and breaks longer ones.
local function for_window(rows)
    local text = { ("%5s  %-20s  %-20s %7s %6s %6s"):format("", "Client", "Server", "Packets", "B ->", "B <-") }
    for _, r in ipairs(rows) do
        text[#text + 1] = ("%5d  %s  %s %7s %6s %6s"):format(
            r.index, fitted(r[1] or "?", 20), fitted(r[2] or "?", 20), short(r.packets), short(r.bytes[1]),
            short(r.bytes[2]))
        local more = r.lost > 0 and ("  %s lost"):format(short(r.lost)) or ""
        if r.fds > 0 then more = more .. ("  %s descriptors"):format(short(r.fds)) end
        text[#text + 1] = ("       %s  %s, from %.3f to %.3f s%s"):format(
            r.path or "(unnamed)", r.type or "?", r.first, r.last, more)
    end
    return table.concat(text, "\n")
end

-- Orders of the rows by the label of their button, the largest first unless noted.
local ORDERS = {
    { "By index", function(a, b) return a.index < b.index end },
    { "By bytes", function(a, b) return a.bytes[1] + a.bytes[2] > b.bytes[1] + b.bytes[2] end },
    { "By packets", function(a, b) return a.packets > b.packets end },
    { "By losses", function(a, b) return a.lost > b.lost end },
    { "By path", function(a, b) return (a.path or "\255") < (b.path or "\255") end },
}

-- The same rows in the order of `before`; those that are equal by index.
local function sorted(rows, before)
    local copy = {}
    for i, r in ipairs(rows) do copy[i] = r end
    table.sort(copy, function(a, b)
        if before(a, b) then return true end
        return not before(b, a) and a.index < b.index
    end)
    return copy
end

local TITLE = "Unix Socket Conversations"

local function tshark() rows_in.print(TITLE, collector(), for_terminal) end

local function window()
    local before = ORDERS[1][2]
    local buttons = {}
    for i, one in ipairs(ORDERS) do
        buttons[i] = { one[1], function() before = one[2] end }
    end
    rows_in.open(TITLE, collector(), function(rows) return for_window(sorted(rows, before)) end,
        function(rows) return for_clipboard(sorted(rows, before)) end, buttons)
end

if register_stat_cmd_arg then register_stat_cmd_arg("unixsock,conv", tshark) end
if gui_enabled() and register_menu then
    register_menu(TITLE, window, MENU_STAT_UNSORTED or MENU_STAT_GENERIC)
end

return {}
