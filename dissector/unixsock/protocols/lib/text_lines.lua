-- Makes dissectors of protocols whose messages are lines of text.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local printable = host.load("util/text").printable
local framing = host.load("protocols/lib/framing")
local M = {}

-- Makes `proto` a dissector whose messages are lines, or whole datagrams; `layers` and `passed` as in
-- framing.dissector.  `scan` finds the end of a line where that is not the first "\n".
function M.dissector(proto, show, layers, passed, scan)
    local count = not scan and framing.count_byte("\n") or nil
    local lines = framing.cutter(scan or framing.until_byte("\n"), show, layers, count, passed)
    function proto.dissector(tvb, pinfo, tree)
        if pinfo.can_desegment > 0 then return lines(tvb, pinfo, tree) end
        show(tvb, pinfo, tree)
        return tvb:len()
    end
    return proto
end

-- The Proto of a declared protocol whose lines are "word the-rest", with fields `prefix`.line, .command and .args;
-- `label` is the Protocol column.  Optional in `rules`: hide(command) true keeps the arguments out of Info;
-- match(word, line, tree, pinfo) finds questions and answers (dispatch/exchanges.lua); scan as above.
function M.proto(protocol, prefix, label, rules)
    rules = rules or {}
    local hide, match, scan = rules.hide, rules.match, rules.scan or framing.until_byte("\n")
    local F = {
        line = ProtoField.string(prefix .. ".line", "Line"),
        command = ProtoField.string(prefix .. ".command", "Command"),
        args = ProtoField.string(prefix .. ".args", "Arguments"),
    }
    local proto = framing.proto(protocol, F)

    local function show(message, pinfo, tree)
        local text = message:raw(0, message:len()):gsub("\r?\n$", "")
        local t = tree:add(proto, message:range(0, message:len()))
        if text == "" then return end
        local shown = printable(text)
        t:add(F.line, message:range(0, #text), shown)
        local word, at = text:match("^(%S+)%s*()")
        if word then
            t:add(F.command, message:range(0, #word), printable(word))
            if at <= #text then
                t:add(F.args, message:range(at - 1, #text - at + 1), printable(text:sub(at)))
            end
        end
        if hide and word and hide(word) then shown = word end
        t:append_text(", " .. shown)
        framing.info(pinfo, label, shown)
        if match and word then match(word, text, t, pinfo) end
    end

    -- Lines that are not shown, because a record has too many, ask and answer, too.
    local function passed(_, pinfo, text, from, stop, tree)
        while text and from < stop do
            local after = scan(text, from, stop, {}) or stop
            local line = text:sub(from + 1, math.min(after, stop)):gsub("\r?\n$", "")
            local word = line:match("^%S+")
            if word then match(word, line, tree, pinfo) end
            from = after
        end
    end

    return M.dissector(proto, show, nil, match and passed, rules.scan)
end

return M
