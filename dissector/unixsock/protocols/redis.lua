-- Redis and Valkey: Wireshark's "resp" shows the parts of a split message again when the rest arrives, so it gets
-- whole messages.  Source: Redis serialization protocol specification.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local protocol = host.load("protocols/lib/declare")({
    name = "unixsock.resp", title = "Redis Transport",
    paths = {
        "*/redis*.sock", "*/redis*/*.sock", "*/valkey*.sock", "*/keydb*.sock",
    },
    stream = {
        "^[%*][%d]+\r\n%$%d+\r\n",
    },
})

local exchanges = host.load("dispatch/exchanges")
local framing = host.load("protocols/lib/framing")
local proto = framing.proto(protocol, {})
local resp
local MAX_DEPTH = 32
local MAX_HEAD = 16 -- bytes in which a length must end: its mark, ten digits at most and CR LF

local SIZED, NESTED = {}, {} -- by the mark's byte: bytes of a known length, or so many values for each that is counted
for mark in ("$=!"):gmatch(".") do SIZED[mark:byte()] = true end
for mark, each in pairs({ ["*"] = 1, ["~"] = 1, [">"] = 1, ["%"] = 2, ["|"] = 2 }) do NESTED[mark:byte()] = each end

-- The number in the head at `from`, -1 for none; nil if the head is cut, false if it is none; and where it ends.
local function head(text, from, last)
    local digits, stop = text:match("^%-?(%d+)\r\n()", from + 2)
    if digits then
        if #digits > 10 then return false end
        return text:byte(from + 2) == 45 and -1 or tonumber(digits), stop - 1
    end
    return last - from < MAX_HEAD and nil
end

-- `state` has the number of values that are still to come at each depth: a message is one value.
local function scan(text, from, last, state)
    local depth = state.depth or 1
    if not state[1] then state[1] = 1 end
    while from < last do
        local mark = not state.line and text:byte(from + 1)
        local each, sized = NESTED[mark], SIZED[mark]
        local values, stop = 0
        if each or sized then
            local number, after = head(text, from, last)
            if not number then
                state.depth = depth
                return number, from
            end
            stop = after
            if sized then
                if number >= 0 then stop = stop + number + 2 end
                if number > framing.MAX then return false end
            elseif number > 0 then
                values = number * each
                if values > framing.MAX or depth >= MAX_DEPTH then return false end
            end
        else
            stop = select(2, text:find("\r\n", from + (state.line and 1 or 2), true))
            state.line = not stop -- begun, but for a CR that may be the end's
            if not stop then
                state.depth = depth
                return nil, math.max(from, text:byte(last) == 13 and last - 1 or last)
            end
        end
        state[depth] = state[depth] - 1
        if values > 0 then
            depth = depth + 1
            state[depth] = values
        end
        while depth > 0 and state[depth] == 0 do depth = depth - 1 end
        if depth == 0 then return stop end
        from = stop
    end
    state.depth = depth
    return nil, from
end

-- Lines that are values as they are, up to the next one that is not.
local function count(text, from)
    if NESTED[text:byte(from + 1)] or SIZED[text:byte(from + 1)] then return 0, from end
    local stop = text:find("\r\n[$=!*~>%%|]", from + 1)
    stop = stop and stop + 1 or framing.last(text, "\r\n")
    if stop <= from then return 0, from end
    return select(2, text:sub(from + 1, stop):gsub("\r\n", "")), stop
end

local LONGEST_NAME = 32 -- bytes of a command's name; Info shows subcommands

local function show(message, pinfo, tree)
    resp = resp or DissectorTable.get("tcp.port"):get_dissector(6379)
    if resp then pcall(resp.call, resp, message, pinfo, tree) end
    local text = message:raw(0, math.min(message:len(), 256))
    local mark = text:byte()
    if not host.current.way.src_is_server then
        local command = text:match("^%*%d+\r\n%$%d+\r\n([^\r\n]+)") or text:match("^[^%s*]+")
        exchanges.question("RESP", command and command:sub(1, LONGEST_NAME):upper(), nil, tree, pinfo)
    elseif mark ~= 62 then -- ">" is sent unasked
        exchanges.answer(nil, (mark == 45 or mark == 33) and text:match("^[-!]([^\r\n]*)") or nil, tree, pinfo)
    end
end

protocol.proto = framing.dissector(proto, scan, show, 1, count, framing.in_order)
return protocol
