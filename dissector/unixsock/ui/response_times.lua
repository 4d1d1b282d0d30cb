-- How long answers took, by protocol and method: `tshark -z unixsock,srt`, and a window in the Statistics menu.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local exchanges = host.load("dispatch/exchanges")
local rows_in = host.load("ui/rows")

local PERCENT = 0.95

-- Collects what exchanges.lua finds in each packet, and gives it as rows.
local function collector()
    local M = {}
    local rows, order

    function M.reset() rows, order = {}, {} end

    M.reset()

    function M.packet(pinfo)
        if not host.current or host.current.number ~= pinfo.number then return end
        for _, event in ipairs(exchanges.events) do
            local row = rows[event.what]
            if not row then
                row = { protocol = event.what[1], method = event.what[2], count = 0, errors = 0, times = {} }
                rows[event.what], order[#order + 1] = row, row
            end
            if event.late then
                row.errors = row.errors + 1
            elseif event.time then
                row.times[#row.times + 1] = math.max(event.time, 0)
                if event.failed then row.errors = row.errors + 1 end
            else
                row.count = row.count + 1
            end
        end
        exchanges.events = {} -- a packet's are counted once, whatever else taps it
    end

    -- The rows with their figures, those that took longest in all first.
    function M.rows()
        for _, row in ipairs(order) do
            local times, sum = row.times, 0
            table.sort(times)
            for _, time in ipairs(times) do sum = sum + time end
            row.sum, row.min, row.max = sum, times[1], times[#times]
            row.mean = #times > 0 and sum / #times or nil
            row.p95 = times[math.max(math.ceil(PERCENT * #times), 1)]
            row.unanswered = math.max(row.count - #times, 0)
        end
        table.sort(order, function(a, b)
            if a.sum ~= b.sum then return a.sum > b.sum end
            if a.protocol ~= b.protocol then return a.protocol < b.protocol end
            return a.method < b.method
        end)
        return order
    end

    return M
end

local HEADS = { "Protocol", "Count", "Errors", "Unanswered", "Min ms", "Mean ms", "p95 ms", "Max ms", "Method" }

-- A number of milliseconds; "-" where none is known.
local function ms(time) return time and ("%.3f"):format(time * 1000) or "-" end

local function lines(rows, format)
    local text = { format:format(table.unpack(HEADS)) }
    for _, row in ipairs(rows) do
        text[#text + 1] = format:format(row.protocol, row.count, row.errors, row.unanswered, ms(row.min), ms(row.mean),
            ms(row.p95), ms(row.max), row.method)
    end
    local over = exchanges.not_remembered()
    if over > 0 then text[#text + 1] = ("%d later questions are not counted"):format(over) end
    return table.concat(text, "\n")
end

local FOR_TERMINAL = "%-10s %8s %7s %11s %10s %10s %10s %10s  %s"
local FOR_WINDOW = "%-9s %6s %6s %10s %9s %9s %9s %9s\n    %s"
local FOR_CLIPBOARD = ("%s\t"):rep(#HEADS - 1) .. "%s"
local TITLE = "Unix Socket Response Times"

local function tshark()
    exchanges.listening = true
    rows_in.print(TITLE, collector(), function(rows) return lines(rows, FOR_TERMINAL) end)
end

local function window()
    exchanges.listening = true
    rows_in.open(TITLE, collector(), function(rows) return lines(rows, FOR_WINDOW) end,
        function(rows) return lines(rows, FOR_CLIPBOARD) .. "\n" end, {})
end

if register_stat_cmd_arg then register_stat_cmd_arg("unixsock,srt", tshark) end
if gui_enabled() and register_menu then
    register_menu("Unix sockets/Response times", window, MENU_STAT_UNSORTED or MENU_STAT_GENERIC)
end

return {}
