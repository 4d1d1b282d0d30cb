-- What a collector's rows look like in tshark (`-z`) and in a window of Wireshark's Statistics menu.  A collector
-- has packet(pinfo), reset() and rows().
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local M = {}

local function listen(collector)
    local tap = Listener.new("frame")
    function tap.packet(pinfo) collector.packet(pinfo) end
    function tap.reset() collector.reset() end
    return tap
end

-- Prints `text(rows)` when tshark has read all packets.
function M.print(title, collector, text)
    local frame = ("="):rep(40)
    listen(collector).draw = function()
        print(table.concat({ frame, title, text(collector.rows()), frame }, "\n"))
    end
end

-- Opens a window that shows `text(rows)` and copies `copied(rows)`.  `buttons` are pairs of a label and what it does
-- before the rows are shown again.
function M.open(title, collector, text, copied, buttons)
    local tap = listen(collector)
    local view = TextWindow.new(title)
    view:set_atclose(function() tap:remove() end)
    function tap.reset()
        collector.reset()
        view:clear()
    end
    local function show() view:set(text(collector.rows())) end
    for _, one in ipairs(buttons) do
        view:add_button(one[1], function()
            one[2]()
            show()
        end)
    end
    view:add_button("Copy", function() copy_to_clipboard(copied(collector.rows())) end)
    tap.draw = show
    if retap_packets then retap_packets() end
end

return M
