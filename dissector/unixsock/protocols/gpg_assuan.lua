-- Assuan, what GnuPG's programs speak among themselves: lines.  Source: "Developing with Assuan".
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local protocol = host.load("protocols/lib/declare")({
    name = "unixsock.assuan", title = "Assuan",
    paths = {
        "*/S.*",
    },
    stream = {
        "^OK Pleased to meet you",
    },
    greeting = "OK Pleased to meet",
})

local exchanges = host.load("dispatch/exchanges")

-- Lines with which a client answers an INQUIRE, and that ask nothing.
local NO_COMMAND = { D = true, END = true, CAN = true, ["#"] = true }

local function match(word, line, tree, pinfo)
    if not host.current.way.src_is_server then
        if not NO_COMMAND[word] then exchanges.question("ASSUAN", word:upper(), nil, tree, pinfo) end
    elseif word == "OK" or word == "ERR" then
        exchanges.answer(nil, word == "ERR" and line:sub(5) or nil, tree, pinfo)
    end
end

-- "D" lines carry data, perhaps secret, perhaps long: Info shows that they are there.
protocol.proto = host.load("protocols/lib/text_lines").proto(protocol, "assuan", "ASSUAN",
    { hide = function(command) return command == "D" end, match = match })
return protocol
