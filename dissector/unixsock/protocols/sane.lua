-- SANE, scanners of another program: requests begin with a number, words are u32 (big-endian), texts have a length.
-- What a reply is only its request tells: of replies, the status is shown.  Source: SANE Standard, Network Protocol.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local protocol = host.load("protocols/lib/declare")({
    name = "unixsock.sane", title = "SANE Network Protocol",
    paths = {
        "*saned*sock*", "*/sane/*", "*/sane.sock",
    },
    stream = { -- INIT, version 1.x, a user's name
        "^\0\0\0\0\1\0\0[\0-\9]\0\0\0[\1-\64][%w_.-]*\0",
    },
})

local printable = host.load("util/text").printable
local exchanges = host.load("dispatch/exchanges")
local framing = host.load("protocols/lib/framing")
local CODES = {
    [0] = "INIT", "GET_DEVICES", "OPEN", "CLOSE", "GET_OPTION_DESCRIPTORS", "CONTROL_OPTION", "GET_PARAMETERS",
    "START", "CANCEL", "AUTHORIZE", "EXIT",
}
local STATUS = {
    [0] = "GOOD", "UNSUPPORTED", "CANCELLED", "DEVICE_BUSY", "INVAL", "EOF", "JAMMED", "NO_DOCS", "COVER_OPEN",
    "IO_ERROR", "NO_MEM", "ACCESS_DENIED",
}
-- What follows the code: words (w) and texts (s); o is an option's value.
local ARGUMENTS = { [0] = "ws", "", "s", "w", "w", "wwwo", "w", "w", "w", "sss", "" }
local SET_AUTO, TEXT, MAX_TEXT = 2, 3, 65536
local EXIT = 10

local F = {
    code = ProtoField.uint32("sane.code", "Request", base.DEC, CODES),
    word = ProtoField.uint32("sane.word", "Word"),
    text = ProtoField.string("sane.text", "Text"),
    status = ProtoField.uint32("sane.status", "Status", base.DEC, STATUS),
    data = ProtoField.bytes("sane.data", "Data"),
}
local proto = framing.proto(protocol, F)
local unpack = Struct.unpack

-- Reads the arguments of the request at `from`: found(kind, at, size) for each.  Gives where it ends, nil if it is cut,
-- false if it is none.
local function arguments(text, from, last, found)
    if last - from < 4 then return nil end
    local code = unpack(">I4", text, from + 1)
    local kinds, at, words = ARGUMENTS[code], from + 4, {}
    if not kinds then return false end
    for kind in kinds:gmatch(".") do
        if kind == "o" then
            if words[3] == SET_AUTO then return at end
            if last - at < 12 then return nil end
            local value, _, count = unpack(">I4I4I4", text, at + 1)
            if count > MAX_TEXT then return false end
            local size = 12 + (value == TEXT and count or count * 4)
            if value > TEXT then size = 8 end -- buttons and groups have none
            if last - at < size then return nil end
            if found then found(kind, at, size) end
            at = at + size
        else
            if last - at < 4 then return nil end
            local number = unpack(">I4", text, at + 1)
            local size = 4
            if kind == "s" then
                if number > MAX_TEXT then return false end
                size = 4 + number
                if last - at < size then return nil end
            else
                words[#words + 1] = number
            end
            if found then found(kind, at, size) end
            at = at + size
        end
    end
    return at
end

local function scan(text, from, last)
    local stop = arguments(text, from, last)
    if stop == nil then return nil, from end
    return stop
end

local function show(message, pinfo, tree)
    local t, size = tree:add(proto, message:range(0, message:len())), message:len()
    if size < 4 then return end
    local code = message:range(0, 4):uint()
    local info = CODES[code] or ("request %d"):format(code)
    t:add(F.code, message:range(0, 4))
    arguments(message:raw(0, size), 0, size, function(kind, at, length)
        if kind == "w" then
            t:add(F.word, message:range(at, 4))
        elseif kind == "s" and length > 4 then
            local words = printable(message:raw(at + 4, length - 4):gsub("%z$", ""), nil)
            t:add(F.text, message:range(at + 4, length - 4), words)
            if code ~= 9 then info = info .. " " .. words end -- not a password
        elseif kind == "o" then
            t:add(F.data, message:range(at, length))
        end
    end)
    t:append_text(", " .. info)
    framing.info(pinfo, "SANE", info)
    if code ~= EXIT then exchanges.question("SANE", info:match("^%S+"), nil, t, pinfo) end
end

local requests = framing.cutter(scan, show)

function proto.dissector(tvb, pinfo, tree)
    if not host.current.way.src_is_server then return requests(tvb, pinfo, tree) end
    local size = tvb:len()
    local t, info = tree:add(proto, tvb:range(0, size)), ("reply, %d bytes"):format(size)
    local status = size >= 4 and tvb:range(0, 4):uint()
    local failure = status and status ~= 0 and STATUS[status] or nil
    if status and STATUS[status] then t:add(F.status, tvb:range(0, 4)) end
    t:add(F.data, tvb:range(0, size))
    exchanges.answer(nil, failure, t, pinfo)
    t:append_text(", " .. info)
    framing.info(pinfo, "SANE", info)
    return size
end

protocol.proto = proto
return protocol
