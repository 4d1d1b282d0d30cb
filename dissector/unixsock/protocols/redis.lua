-- Redis and Valkey: Wireshark's "resp" shows the parts of a split message again when the rest arrives, so it gets
-- whole messages.  Source: Redis serialization protocol specification.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local framer = host.load("protocols/lib/framing")
local proto = Proto("unixsock_resp", "Redis Transport")
local resp
local MAX_DEPTH = 32

-- Where the value that begins at `at` (from 1) ends, exclusive; nil if more bytes are needed.
local function value_end(text, at, depth)
    local stop = text:find("\r\n", at, true)
    if not stop then return nil end
    local mark, count = text:sub(at, at), tonumber(text:match("^.(%-?%d+)\r\n", at))
    local after = stop + 2
    if count and (mark == "%" or mark == "|") then mark, count = "*", count * 2 end -- a map
    if (mark == "$" or mark == "=" or mark == "!") and count and count >= 0 then
        return after + count + 2 <= #text + 1 and after + count + 2 or nil
    elseif (mark == "*" or mark == "~" or mark == ">") and count and count > 0 and depth < MAX_DEPTH then
        for _ = 1, count do
            after = value_end(text, after, depth + 1)
            if not after then return nil end
        end
    end
    return after
end

local function length(tvb, at)
    local stop = value_end(tvb:raw(at, tvb:len() - at), 1, 0)
    return stop and stop - 1
end

local function show(message, pinfo, tree)
    resp = resp or DissectorTable.get("tcp.port"):get_dissector(6379)
    if resp then pcall(resp.call, resp, message, pinfo, tree) end
end

function proto.dissector(tvb, pinfo, tree)
    return framer.split(tvb, pinfo, tree, length, show)
end

return proto
