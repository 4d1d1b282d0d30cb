-- Who could not connect or had to wait, and where, by path: `tshark -z unixsock,waits`, and a window in the Statistics
-- menu.  What connects, accepts and refusals say is in captures with events.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local format = host.load("record/format")
local process = host.load("util/text").process
local rows_in = host.load("ui/rows")
local EVENT, SOCKETPAIR, has = format.EVENT, format.FLAG.SOCKETPAIR, format.has

-- Collects what happened at each path, and gives it as rows.
local function collector()
    local M = {}
    local rows, order, connected

    function M.reset() rows, order, connected = {}, {}, {} end

    M.reset()

    local function row(path)
        local r = rows[path]
        if not r then
            r = { path = path, connects = 0, accepts = 0, pending = 0, refused = 0, reasons = {}, by_reason = {} }
            rows[path], order[#order + 1] = r, r
        end
        return r
    end

    -- One more of `errno`, by `who`.
    local function refuse(r, errno, who)
        local key = errno .. " " .. who
        local reason = r.by_reason[key]
        if not reason then
            reason = { errno = errno, who = who, count = 0 }
            r.by_reason[key], r.reasons[#r.reasons + 1] = reason, reason
        end
        reason.count = reason.count + 1
        r.refused = r.refused + 1
    end

    local HANDLERS = {
        [EVENT.CONNECT] = function(r, rec, now)
            if has(rec.shared.flags, SOCKETPAIR) then return end
            r.connects, r.pending = r.connects + 1, r.pending + 1
            connected[rec.way.conversation] = { row = r, at = now }
        end,
        [EVENT.ACCEPT] = function(_, rec, now)
            local since = connected[rec.way.conversation]
            if not since then return end
            local r, wait = since.row, math.max(now - since.at, 0)
            connected[rec.way.conversation] = nil
            r.accepts, r.pending = r.accepts + 1, r.pending - 1
            r.wait = math.max(r.wait or 0, wait)
        end,
        [EVENT.REFUSED] = function(r, rec)
            local el = rec.shared.el
            refuse(r, el.error or "?", process(el.src_comm, rec.shared.src_pid) or "?")
        end,
    }
    HANDLERS[EVENT.SEND_ERROR] = HANDLERS[EVENT.REFUSED]

    function M.packet(pinfo)
        local rec = host.current
        if not rec or rec.number ~= pinfo.number then return end
        local handle = HANDLERS[rec.event]
        if not handle then return end
        local r, el = row(rec.shared.path or "(unnamed)"), rec.shared.el
        handle(r, rec, pinfo.rel_ts)
        if el.waiting and el.waiting >= (r.waiting or 0) then r.waiting, r.limit = el.waiting, el.limit end
    end

    -- The rows: those with most refusals first, then those with the longest wait.
    function M.rows()
        local found = {}
        for _, r in ipairs(order) do
            if r.connects + r.refused > 0 then found[#found + 1] = r end
            table.sort(r.reasons, function(a, b)
                if a.count ~= b.count then return a.count > b.count end
                return a.errno .. a.who < b.errno .. b.who
            end)
        end
        table.sort(found, function(a, b)
            if a.refused ~= b.refused then return a.refused > b.refused end
            if (a.wait or 0) ~= (b.wait or 0) then return (a.wait or 0) > (b.wait or 0) end
            return a.path < b.path
        end)
        return found
    end

    return M
end

local HEADS = { "Connects", "Accepted", "Pending", "Wait ms", "Refused", "Queue", "Path" }

-- A row for each path, and below it, as `reason` formats it, a line for each error and process.
local function lines(rows, format_row, reason)
    local text = { format_row:format(table.unpack(HEADS)) }
    for _, r in ipairs(rows) do
        local wait = r.wait and ("%.3f"):format(r.wait * 1000) or "-"
        local queue = r.waiting and ("%d/%d"):format(r.waiting, r.limit) or "-"
        text[#text + 1] = format_row:format(r.connects, r.accepts, r.pending, wait, r.refused, queue, r.path)
        for _, one in ipairs(r.reasons) do text[#text + 1] = reason:format(one.count, one.errno, one.who) end
    end
    return table.concat(text, "\n")
end

local FOR_READERS = "%8s %8s %8s %11s %8s %11s  %s"
local FOR_CLIPBOARD = ("%s\t"):rep(#HEADS - 1) .. "%s"
local TITLE = "Unix Socket Refusals and Waits"

local function for_readers(rows) return lines(rows, FOR_READERS, "%45d  %s, %s") end
local function for_clipboard(rows) return lines(rows, FOR_CLIPBOARD, "\t\t\t\t%d\t%s\t%s") .. "\n" end

local function tshark() rows_in.print(TITLE, collector(), for_readers) end
local function window() rows_in.open(TITLE, collector(), for_readers, for_clipboard, {}) end

if register_stat_cmd_arg then register_stat_cmd_arg("unixsock,waits", tshark) end
if gui_enabled() and register_menu then
    register_menu("Unix sockets/Refusals and waits", window, MENU_STAT_UNSORTED or MENU_STAT_GENERIC)
end

return {}
