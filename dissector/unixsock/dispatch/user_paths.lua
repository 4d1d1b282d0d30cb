-- The user's choice by path: entries of the preference "Protocols by path", then lines of a file.  Each is a glob and
-- a protocol: a dissector's name, its display filter name or its transport port; after "@" how the bytes are cut into
-- messages (protocols/lib/framers.lua); or "heur/LIST" for Wireshark's heuristic dissectors of that list.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local registry = host.load("dispatch/registry")
local framers = host.load("protocols/lib/framers")
local matcher = host.load("util/glob").matcher
local printable = host.load("util/text").printable

local M = {}

local FILE = "unixsock_paths" -- in Wireshark's personal folder, then in its global one
local MOST, LONGEST = 4096, 1024 -- lines of a file, and bytes of a line

local HELP = "PROTOCOL is a dissector's name, its filter name, tcp/PORT, udp/PORT, heur/LIST or data"
local FRAMERS = table.concat(framers.names, ", ")

local function has_heuristics(list)
    for _, name in ipairs(DissectorTable.heuristic_list()) do
        if name == list then return true end
    end
    return false
end

-- What takes the payload for the protocol that `words` name: a dissector or a function that is called like one; and
-- whether its messages are cut here.  Or nil and what is wrong.
local function choose(words)
    local list = words:match("^heur/(.+)$")
    if list then
        if not has_heuristics(list) then
            return nil, ("Wireshark has no list of heuristic dissectors that is called '%s'"):format(printable(list))
        end
        return function(tvb, pinfo, tree)
            return DissectorTable.try_heuristics(list, tvb, pinfo, tree) and tvb:len() or 0
        end
    end
    local name, framer = words:match("^(.-)@(.*)$")
    local dissector = registry.get(name or words)
    if not dissector then
        return nil, ("Wireshark has no dissector that is called '%s'; %s"):format(printable(name or words), HELP)
    elseif not framer then
        return dissector
    elseif not framers[framer] then
        return nil, ("'%s' is no way to cut messages: %s"):format(printable(framer), FRAMERS)
    end
    return framers[framer](dissector), nil, true
end

-- Adds an entry to `entries`, or a sentence to `wrong`; `where` it stands.
local function add(entries, wrong, glob, words, where)
    local chosen, sentence, framed = choose(words)
    if sentence then
        wrong[#wrong + 1] = where .. sentence
    else
        entries[#entries + 1] = { matcher(glob), words:match("^[^@]*"), chosen = chosen, framed = framed }
    end
end

local function read_preference(entries, wrong)
    for entry in (host.prefs.paths or ""):gmatch("[^%s;]+") do
        local glob, words = entry:match("^(.+)=([^=]+)$")
        local where = ("Protocols by path, '%s': "):format(printable(entry))
        if glob then
            add(entries, wrong, glob, words, where)
        else
            wrong[#wrong + 1] = where .. "an entry is GLOB=PROTOCOL"
        end
    end
end

-- The lines of the files that there are: { glob, protocol, where it stands }, and sentences on others.
local lines, wrong_lines = {}, {}

local function read_file(path)
    local file = io.open(path)
    if not file then return end
    local number = 0
    for line in file:lines() do
        number = number + 1
        local where = ("%s, line %d: "):format(printable(path), number)
        if number > MOST then
            wrong_lines[#wrong_lines + 1] = ("%sno more than %d lines are read"):format(where, MOST)
            break
        end
        local words = line:sub(1, LONGEST + 1):gsub("%s+#.*$", ""):gsub("^%s*#.*$", "")
        if words:find("%S") then
            local glob, name = words:match("^%s*(.-)%s+(%S+)%s*$")
            if glob and glob ~= "" and #line <= LONGEST then
                lines[#lines + 1] = { glob, name, where }
            else
                wrong_lines[#wrong_lines + 1] = where .. "a line is a GLOB, space and a PROTOCOL"
            end
        end
    end
    file:close()
end

for _, folder in ipairs({ Dir.personal_config_path(), Dir.global_config_path() }) do
    read_file(folder:gsub("/$", "") .. "/" .. FILE)
end

local printed = {} -- sentences that have been

-- All entries { matches(path), name, chosen, framed } in their order, and sentences on what is wrong with others, each
-- of which is printed once.
function M.read()
    local entries, wrong = {}, {}
    read_preference(entries, wrong)
    for _, line in ipairs(lines) do add(entries, wrong, line[1], line[2], line[3]) end
    for _, sentence in ipairs(wrong_lines) do wrong[#wrong + 1] = sentence end
    for _, sentence in ipairs(wrong) do
        if not printed[sentence] then
            printed[sentence] = true
            io.stderr:write("unixsock: " .. sentence .. "\n")
            if gui_enabled() and warn then warn("unixsock: " .. sentence) end
        end
    end
    return entries, wrong
end

return M
