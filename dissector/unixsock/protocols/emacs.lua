-- Emacs' server: lines of options, in which "&" quotes spaces and line ends.  Source: GNU Emacs, lisp/server.el.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local protocol = host.load("protocols/lib/declare")({
    name = "unixsock.emacs", title = "Emacs Server",
    paths = {
        "*/emacs/*", "*/emacs*/server*",
    },
    stream = {
        "^%-emacs%-pid %d+ ?\n", "^%-env [%w_]+=", "^%-dir /[^%c]* %-",
    },
})

local printable = host.load("util/text").printable
local exchanges = host.load("dispatch/exchanges")
local framing = host.load("protocols/lib/framing")
local lines = host.load("protocols/lib/text_lines")
local F = {
    option = ProtoField.string("emacs.option", "Option"),
    value = ProtoField.string("emacs.value", "Value"),
}
local proto = framing.proto(protocol, F)

local QUOTED = { ["&_"] = " ", ["&n"] = "\n", ["&-"] = "-", ["&&"] = "&" }
local ANSWERS = { ["-error"] = true, ["-print"] = true, ["-print-nonl"] = true }

local function show(message, pinfo, tree)
    local text = message:raw(0, message:len())
    local t, words, count, option, failure = tree:add(proto, message:range(0, message:len())), {}, 0, nil, nil
    local asked, answered
    for at, word in text:gmatch("()(%S+)") do
        count = count + 1
        if count > framing.MOST_FIELDS then
            framing.more_fields(t, message, at - 1, select(2, text:sub(at):gsub("%S+", "")))
            break
        end
        if word:byte() == 45 then
            option = word
            t:add(F.option, message:range(at - 1, #word), printable(word))
            answered = answered or ANSWERS[word]
            if word == "-eval" or word == "-file" then asked = word end
            if word ~= "-env" then words[#words + 1] = printable(word) end
        else
            local value = printable((word:gsub("&[_n&-]", QUOTED)))
            t:add(F.value, message:range(at - 1, #word), value)
            -- The environment may have secrets, and is long.
            if option ~= "-env" and #words < 64 then words[#words + 1] = value end
            if option == "-error" then failure = value end
        end
    end
    local info = #words > 0 and table.concat(words, " ") or "line"
    t:append_text(", " .. info)
    framing.info(pinfo, "EMACS", info)
    if host.current.way.src_is_server then
        if answered then exchanges.answer(nil, failure, t, pinfo) end
    elseif asked then
        exchanges.question("EMACS", asked, nil, t, pinfo, true)
    end
end

protocol.proto = lines.dissector(proto, show, 0)
return protocol
