-- Conversations with processes and paths: `tshark -z unixsock,conv`, and a window in the Statistics menu.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local TYPES = host.load("record/format").TYPES
local EVENT = host.load("record/format").EVENT
local process = host.load("util/text").process

-- Collects what the packets say, and gives it as text.
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
        local r, el = row(rec.way.conversation.index), rec.says.el
        -- Side 1 is the client where that is known.
        local from, to = 1, 2
        if rec.way.src_is_server then from, to = 2, 1 end
        r.type = r.type or TYPES[rec.says.type]
        r.path = r.path or rec.says.path
        r[from] = process(el.src_comm, rec.says.src_pid) or r[from]
        r[to] = process(el.dst_comm, rec.says.dst_pid) or r[to]
        r.packets = r.packets + 1
        if rec.event == EVENT.DATA and rec.offset == 0 then r.bytes[from] = r.bytes[from] + rec.len end
        r.lost = r.lost + (el.lost_messages or 0)
        r.lost_bytes = r.lost_bytes + (el.lost_bytes or 0)
        r.fds = r.fds + (el.fds_count or 0)
        local now = pinfo.rel_ts
        r.first = r.first or now
        r.last = now
    end

    function M.text()
        local lines = {
            ("%6s %-9s %-22s %-22s %9s %12s %12s %11s %11s %6s %12s %6s  %s"):format(
                "Index", "Type", "Client", "Server", "Packets", "Bytes ->", "Bytes <-", "First", "Last", "Lost",
                "Bytes lost", "Fds", "Path"),
        }
        local format = "%6d %-9s %-22s %-22s %9d %12.0f %12.0f %11.6f %11.6f %6.0f %12.0f %6d  %s"
        for _, r in ipairs(order) do
            lines[#lines + 1] = format:format(
                r.index, r.type or "?", r[1] or "?", r[2] or "?", r.packets, r.bytes[1],
                r.bytes[2], r.first, r.last, r.lost, r.lost_bytes, r.fds, r.path or "(unnamed)")
        end
        return table.concat(lines, "\n")
    end

    return M
end

local TITLE = "Unix Socket Conversations"

local function tshark()
    local c = collector()
    local tap = Listener.new("frame")
    function tap.packet(pinfo) c.packet(pinfo) end
    function tap.reset() c.reset() end
    function tap.draw() print(("="):rep(40) .. "\n" .. TITLE .. "\n" .. c.text() .. "\n" .. ("="):rep(40)) end
end

local function window()
    local c = collector()
    local tap = Listener.new("frame")
    local view = TextWindow.new(TITLE)
    view:set_atclose(function() tap:remove() end)
    function tap.packet(pinfo) c.packet(pinfo) end
    function tap.reset()
        c.reset()
        view:clear()
    end
    function tap.draw() view:set(c.text()) end
    if retap_packets then retap_packets() end
end

if register_stat_cmd_arg then register_stat_cmd_arg("unixsock,conv", tshark) end
if gui_enabled() and register_menu then
    register_menu("Unix Sockets/Conversations", window, MENU_STAT_UNSORTED or MENU_STAT_GENERIC)
end

return {}
