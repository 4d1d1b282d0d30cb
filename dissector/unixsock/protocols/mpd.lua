-- The Music Player Daemon's protocol: lines.  Source: MPD, Protocol Reference.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local protocol = host.load("protocols/lib/declare")({
    name = "unixsock.mpd", title = "Music Player Daemon",
    paths = {
        "*/mpd/socket", "*/mpd*sock*",
    },
    stream = {
        "^OK MPD ",
    },
})

local exchanges = host.load("dispatch/exchanges")

-- Commands that get no answer of their own: those of a list get one together, "noidle" ends "idle".
local NO_ANSWER = { noidle = true, close = true }

local function match(word, line, tree, pinfo)
    local conversation, visited = host.current.way.conversation, pinfo.visited
    if host.current.way.src_is_server then
        if word == "OK" and not line:find("^OK MPD ") then
            exchanges.answer(nil, nil, tree, pinfo)
        elseif word == "ACK" then
            exchanges.answer(nil, line:sub(5), tree, pinfo)
        end
    elseif visited then -- in any order: what was asked is remembered
        exchanges.question("MPD", word, nil, tree, pinfo)
    elseif word == "command_list_begin" or word == "command_list_ok_begin" then
        conversation.asking = "list"
    elseif word == "command_list_end" then
        conversation.asking = nil
        exchanges.question("MPD", "command_list", nil, tree, pinfo)
    elseif not conversation.asking and not NO_ANSWER[word] then
        exchanges.question("MPD", word, nil, tree, pinfo)
    end
end

local lines = host.load("protocols/lib/text_lines")

-- A picture's bytes, which a line "binary: SIZE" announces, and the line's end after them belong to that line.
local function scan(text, from, last, state)
    state.from = state.from or from
    local stop = text:find("\n", from + 1, true)
    if not stop then return nil, last end
    local size = text:match("^binary: (%d+)\n", state.from + 1)
    if size and #size <= 9 then return stop + tonumber(size) + 1 end
    return stop
end

protocol.proto = lines.proto(protocol, "mpd", "MPD", { match = match, scan = scan })
return protocol
