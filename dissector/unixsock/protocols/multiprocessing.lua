-- Python's multiprocessing.connection: i32 length (big-endian; -1: u64 follows) and a message, mostly a pickle.
-- Source: CPython, Lib/multiprocessing/connection.py and Lib/pickletools.py.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local protocol = host.load("protocols/lib/declare")({
    name = "unixsock.multiprocessing", title = "Python multiprocessing",
    paths = {
        "*/pymp-*/listener-*", "@*/pymp-*/listener-*",
    },
    stream = {
        "^\0\0\0.#CHALLENGE#", "^\0\0..\128[\2-\5][\149(%]}KNX]",
    },
})

local printable = host.load("util/text").printable
local exchanges = host.load("dispatch/exchanges")
local framing = host.load("protocols/lib/framing")
local F = {
    length = ProtoField.uint64("multiprocessing.length", "Length"),
    kind = ProtoField.string("multiprocessing.kind", "Kind"),
    text = ProtoField.string("multiprocessing.string", "String"),
    data = ProtoField.bytes("multiprocessing.data", "Data"),
}
local proto = framing.proto(protocol, F)

local function scan(text, from, last)
    if last - from < 4 then return nil, from end
    local size = Struct.unpack(">I4", text, from + 1)
    if size < 0x80000000 then return size <= framing.MAX and from + 4 + size end
    if size ~= 0xffffffff then return false end
    if last - from < 12 then return nil, from end
    local high, low = Struct.unpack(">I4I4", text, from + 5)
    return high == 0 and low <= framing.MAX and from + 12 + low
end

-- Of a pickle's opcodes: how many bytes of a number follow; and those whose number is a length, of a text or of bytes.
local NUMBERS, TEXTS, BYTES = {}, { ["\140"] = 1, X = 4, ["\141"] = 8 }, { C = 1, B = 4, ["\142"] = 8, ["\138"] = 1 }
for codes, size in pairs({
    [".0()tN]}eusabRld12o\129\133\134\135\136\137\143\144\145\147\148\151\152"] = 0, ["Kqh\128\130"] = 1, ["M\131"] = 2,
    ["Jrj\132"] = 4, ["G\149"] = 8,
}) do
    for code in codes:gmatch(".") do NUMBERS[code] = size end
end
local MOST_OPCODES, MOST_TEXTS = 4096, 16
local LENGTHS = { "B", "<I2", nil, "<I4", [8] = "<I4" }

-- The texts in the pickle `text`, without unpickling it: { text, offset }, from `at` on.
local function texts_of(text, at)
    local found = {}
    for _ = 1, MOST_OPCODES do
        local code = text:sub(at, at)
        local sized = TEXTS[code] or BYTES[code]
        if sized then
            if at + sized > #text then break end
            local size = Struct.unpack(LENGTHS[sized], text, at + 1)
            at = at + 1 + sized
            if size > #text - at + 1 then break end
            if TEXTS[code] then
                found[#found + 1] = { text:sub(at, at + size - 1), at }
                if #found == MOST_TEXTS then break end
            end
            at = at + size
        elseif NUMBERS[code] and at <= #text then
            at = at + 1 + NUMBERS[code]
        else
            break
        end
    end
    return found
end

local MARKS = { "#CHALLENGE#", "#WELCOME#", "#FAILURE#" }
local FAILURES = { ["#ERROR"] = true, ["#TRACEBACK"] = true, ["#UNSERIALIZABLE"] = true }

local function show(message, pinfo, tree)
    local t, size = tree:add(proto, message:range(0, message:len())), message:len()
    if size < 4 then return end
    local long = message:range(0, 4):uint() == 0xffffffff and 12 or 4
    if size < long then return end
    if long == 4 then t:add(F.length, message:range(0, 4)) else t:add(F.length, message:range(4, 8)) end
    local body = size > long and message:raw(long) or ""
    local kind
    for _, mark in ipairs(MARKS) do
        if body:sub(1, #mark) == mark then kind = mark end
    end
    local words = ""
    if body:find("^\128[\2-\5]") then
        kind = "pickle"
        local texts = texts_of(body, 1)
        for _, one in ipairs(texts) do
            if one[1] ~= "" then
                t:add(F.text, message:range(long + one[2] - 1, #one[1]), printable(one[1]))
                if #words < 200 then words = words .. " " .. printable(one[1]:sub(1, 64)) end
            end
        end
        -- A manager's: (ident, method, arguments), and ('#RETURN', value) or an error.
        local first, second = texts[1] and texts[1][1] or "", texts[2] and texts[2][1]
        if host.current.way.src_is_server then
            if first:sub(1, 1) == "#" then
                exchanges.answer(nil, FAILURES[first] and words:sub(2) or nil, t, pinfo)
            end
        elseif first ~= "" then
            exchanges.question("PYTHON", first:find("^%x+$") and second or first, nil, t, pinfo, true)
        end
    end
    kind = kind or "message"
    t:add(F.kind, message:range(0, size), kind)
    if size > long then t:add(F.data, message:range(long)) end
    local info = ("%s, %d bytes%s"):format(kind, size - long, words)
    t:append_text(", " .. info)
    framing.info(pinfo, "PYTHON", info)
end

protocol.proto = framing.dissector(proto, scan, show, 0)
return protocol
