-- What is remembered of a conversation: its index in the file, and what its content was recognised as.
-- One small entry for each, as Wireshark itself keeps one.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local M = {}
local known, count

function M.reset()
    known, count = {}, 0
end

M.reset()

-- The table of the conversation between sockets `a` and `b`, which both directions share; its index is counted
-- from 0 in the order of first appearance.
function M.of(a, b)
    local key = a < b and a .. b or b .. a
    local conversation = known[key]
    if not conversation then
        conversation = { index = count }
        known[key] = conversation
        count = count + 1
    end
    return conversation
end

return M
