-- Header fields of HTTP/2, as HPACK has them.  Source: RFC 7541.
--
-- A decoder is one direction of a connection.  One that was joined in the middle does not know what was sent before:
-- fields that refer to it have no name or value (nil).
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local M = {}

local floor, char = math.floor, string.char

-- Appendix A, as "name\1value\2".
local STATIC = {}
local WORDS = ":authority\1\2:method\1GET\2:method\1POST\2:path\1/\2:path\1/index.html\2:scheme\1http\2:scheme\1https\2"
    .. ":status\001200\2:status\001204\2:status\001206\2:status\001304\2:status\001400\2:status\001404\2"
    .. ":status\001500\2"
    .. "accept-charset\1\2accept-encoding\1gzip, deflate\2accept-language\1\2accept-ranges\1\2accept\1\2"
    .. "access-control-allow-origin\1\2age\1\2allow\1\2authorization\1\2cache-control\1\2content-disposition\1\2"
    .. "content-encoding\1\2content-language\1\2content-length\1\2content-location\1\2content-range\1\2"
    .. "content-type\1\2cookie\1\2date\1\2etag\1\2expect\1\2expires\1\2from\1\2host\1\2if-match\1\2"
    .. "if-modified-since\1\2if-none-match\1\2if-range\1\2if-unmodified-since\1\2last-modified\1\2link\1\2location\1\2"
    .. "max-forwards\1\2proxy-authenticate\1\2proxy-authorization\1\2range\1\2referer\1\2refresh\1\2retry-after\1\2"
    .. "server\1\2set-cookie\1\2strict-transport-security\1\2transfer-encoding\1\2user-agent\1\2vary\1\2via\1\2"
    .. "www-authenticate\1\2"
for name, value in WORDS:gmatch("([^\1]*)\1([^\2]*)\2") do STATIC[#STATIC + 1] = { name, value } end

-- Appendix B: the length of each symbol's code, as letters (e: 5 bits); the code is the canonical one of these.
local LENGTHS = "mw|||||||x~||~||||||||~|||||||||" .. "fjjlmfhkjjhkhfffeeefffffffghoflj"
    .. "mfgggggggggggggggggggggghghmsmnf" .. "oefefefffeggfffefgfeefgggggoknm|"
    .. "tvttvvvwvwwwwwxwxxvwxwwwwuvwvwwx" .. "vutvvwwuwvvxuvwwuuvuwvwwtvvvwvvw"
    .. "zztsvwvyzzz{{zxysuz{{z{xuuzz|{{{" .. "txtuvuuwvvyyxxzwz{zz{{{{{|{{{{{z"
    .. "~"

-- By node of the code's tree and the next four bits: the node that these lead to, and the symbol on the way, if any.
local next_node, symbol_of

local function build()
    local order = {}
    for at = 1, #LENGTHS do order[at] = { LENGTHS:byte(at) - 96, at - 1 } end
    table.sort(order, function(a, b)
        if a[1] ~= b[1] then return a[1] < b[1] end
        return a[2] < b[2]
    end)
    local left, right, count = {}, {}, 1 -- negative: a symbol
    local code, before = -1, order[1][1]
    for _, one in ipairs(order) do
        code = (code + 1) * 2 ^ (one[1] - before)
        before = one[1]
        local node = 1
        for bit = one[1] - 1, 0, -1 do
            local side = floor(code / 2 ^ bit) % 2 == 1 and right or left
            if bit == 0 then
                side[node] = -1 - one[2]
            else
                if not side[node] then count, side[node] = count + 1, count + 1 end
                node = side[node]
            end
        end
    end
    next_node, symbol_of = {}, {}
    for from = 1, count do
        for bits = 0, 15 do
            local node, symbol = from, nil
            for bit = 3, 0, -1 do
                node = (floor(bits / 2 ^ bit) % 2 == 1 and right or left)[node]
                if node < 0 then node, symbol = 1, -1 - node end
            end
            next_node[from * 16 + bits], symbol_of[from * 16 + bits] = node, symbol
        end
    end
end

local END_OF_STRING = 256

-- The text that `coded` stands for, or nil if it is no code.
local function decoded(coded)
    if not next_node then build() end
    local node, found, count, high = 1, {}, 0, true
    local at = 1
    while at <= #coded do
        local byte = coded:byte(at)
        local key = node * 16 + (high and floor(byte / 16) or byte % 16)
        local symbol = symbol_of[key]
        node = next_node[key]
        if symbol == END_OF_STRING then return nil end
        if symbol then
            count = count + 1
            found[count] = char(symbol)
        end
        if not high then at = at + 1 end
        high = not high
    end
    return table.concat(found)
end

-- A number that begins in the low `bits` of the byte at `at`; gives it and what follows, nil if it is cut.
local function number_at(text, at, bits)
    local first = text:byte(at)
    if not first then return nil end
    local most = 2 ^ bits - 1
    local number = first % (most + 1)
    at = at + 1
    if number < most then return number, at end
    for shift = 0, 21, 7 do
        local more = text:byte(at)
        if not more then return nil end
        number, at = number + more % 128 * 2 ^ shift, at + 1
        if more < 128 then return number, at end
    end
end

-- The string at `at`, nil where its code is broken, and where it ends; nothing if it is cut.
local function string_at(text, at)
    local first = text:byte(at)
    local size, after = number_at(text, at, 7)
    if not size or after + size > #text + 1 then return nil end
    local words = text:sub(after, after + size - 1)
    if first >= 128 then words = decoded(words) end
    return words, after + size
end

local OVERHEAD = 32 -- of an entry, in the size of the table
local FIRST_SIZE, MOST_SIZE = 4096, 65536

-- A decoder for one direction.
function M.new() return { last = 0, first = 1, size = 0, most = FIRST_SIZE } end

local function evict(decoder)
    while decoder.size > decoder.most and decoder.first <= decoder.last do
        local old = decoder[decoder.first]
        decoder.size, decoder[decoder.first], decoder.first = decoder.size - old[3], nil, decoder.first + 1
    end
end

local function entry(decoder, index)
    if index <= #STATIC then return STATIC[index] end
    return decoder[decoder.last - (index - #STATIC) + 1]
end

local function add(decoder, name, value)
    local size = #(name or "") + #(value or "") + OVERHEAD
    decoder.last, decoder.size = decoder.last + 1, decoder.size + size
    decoder[decoder.last] = { name, value, size }
    evict(decoder)
end

-- Gives a block's fields by name, the first of each; and how many fields refer to what is not known.
function M.fields(decoder, block)
    local found, unknown, at = {}, 0, 1
    local function put(name, value)
        if name and found[name] == nil then found[name] = value end
    end
    while at <= #block do
        local first = block:byte(at)
        local index
        if first >= 128 then -- an entry
            index, at = number_at(block, at, 7)
            if not index or index == 0 then return found, unknown end
            local known = entry(decoder, index)
            if not known or known[1] == nil or known[2] == nil then unknown = unknown + 1 end
            if known then put(known[1], known[2]) end
        elseif first >= 32 and first < 64 then -- a new size of the table
            index, at = number_at(block, at, 5)
            if not index then return found, unknown end
            decoder.most = math.min(index, MOST_SIZE)
            evict(decoder)
        else -- a value, perhaps with a name
            local keep = first >= 64
            local name, value
            index, at = number_at(block, at, keep and 6 or 4)
            if not index then return found, unknown end
            if index == 0 then
                name, at = string_at(block, at)
            else
                local known = entry(decoder, index)
                name = known and known[1]
                if not name then unknown = unknown + 1 end
            end
            if not at then return found, unknown end
            value, at = string_at(block, at)
            if not at then return found, unknown end
            put(name, value)
            if keep then add(decoder, name, value) end
        end
    end
    return found, unknown
end

return M
