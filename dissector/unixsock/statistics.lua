-- Conversations with processes and paths: `tshark -z unixsock,conv`, and a window in the Statistics menu.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local names = {
    "stream", "event", "type", "role", "path", "caplen", "len", "offset", "src.sock", "src.pid", "src.comm",
    "dst.sock", "dst.pid", "dst.comm", "lost.messages", "lost.bytes", "fds.count",
}
local F = {}
for _, name in ipairs(names) do F[name] = Field.new("unixsock." .. name) end
local TYPES = { [1] = "stream", [2] = "dgram", [5] = "seqpacket" }
local EVENT = host.EVENT

local function value(name)
    local found = F[name]()
    return found and found.value
end

local function number(name)
    local found = value(name)
    return found and tonumber(tostring(found)) or 0
end

local function process(side)
    local comm, pid = value(side .. ".comm"), value(side .. ".pid")
    if not comm and not pid then return nil end
    return ("%s[%s]"):format(comm or "", pid and tostring(pid) or "?")
end

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

    function M.packet(pinfo)
        local index = value("stream")
        if not index then return end
        local r = row(index)
        local event = number("event")
        local src = tostring(value("src.sock"))
        -- Side 1 is the client where that is known, else whoever was seen first.
        r.first_sock = r.first_sock or (number("role") == 1 and tostring(value("dst.sock")) or src)
        local a = src == r.first_sock and 1 or 2
        r.type = r.type or TYPES[number("type")]
        r.path = r.path or value("path")
        r[a] = process("src") or r[a]
        r[3 - a] = process("dst") or r[3 - a]
        r.packets = r.packets + 1
        if event == EVENT.DATA and number("offset") == 0 then r.bytes[a] = r.bytes[a] + number("len") end
        r.lost = r.lost + number("lost.messages")
        r.lost_bytes = r.lost_bytes + number("lost.bytes")
        r.fds = r.fds + number("fds.count")
        local now = pinfo.rel_ts
        r.first = r.first or now
        r.last = now
    end

    function M.text()
        local lines = {
            ("%6s %-9s %-22s %-22s %9s %12s %12s %11s %11s %6s %6s  %s"):format("Index", "Type", "Client", "Server",
                "Packets", "Bytes ->", "Bytes <-", "First", "Last", "Lost", "Fds", "Path"),
        }
        local format = "%6d %-9s %-22s %-22s %9d %12.0f %12.0f %11.6f %11.6f %6.0f %6d  %s"
        for _, r in ipairs(order) do
            lines[#lines + 1] = format:format(r.index, r.type or "?", r[1] or "?", r[2] or "?", r.packets, r.bytes[1],
                r.bytes[2], r.first, r.last, r.lost, r.fds, r.path or "(unnamed)")
        end
        return table.concat(lines, "\n")
    end

    return M
end

local TITLE = "Unix Socket Conversations"

local function tshark()
    local c = collector()
    local tap = Listener.new("frame", "unixsock")
    function tap.packet(pinfo) c.packet(pinfo) end
    function tap.reset() c.reset() end
    function tap.draw() print(("="):rep(40) .. "\n" .. TITLE .. "\n" .. c.text() .. "\n" .. ("="):rep(40)) end
end

local function window()
    local c = collector()
    local tap = Listener.new("frame", "unixsock")
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
