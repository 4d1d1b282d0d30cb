-- JSON documents in a stream, one after another, however they are separated: by line ends, NULs or nothing, by
-- Content-Length headers, by lengths (json_text.lua).  Wireshark's "json" takes one whole document.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local protocol = host.load("protocols/lib/declare")({
    name = "unixsock.json", title = "JSON Documents",
    paths = {
        "*qmp*", "*/libvirt/qemu/*/monitor.sock", "*/qga*", "*mpv*sock*", "*json*", "*/openvswitch/db.sock",
        "*/openvswitch/*.ctl", "*/ovn*/*.sock", "*/ovn*/*.ctl", "*/kea/*", "*/lightning-rpc", "*/discord-ipc-*",
        "*/suricata-command.socket",
    },
    stream = {
        "^{\"QMP\"", "^%s*{%s*\"", "^%s*%[%s*{%s*\"", "^Content%-Length: ", "^\0[\0-\15]..{%s*\"",
        "^..[\0-\15]\0{%s*\"", "^[\0-\4]\0\0\0..[\0-\15]\0{%s*\"",
    },
    message = {
        "^{\"",
    },
    greeting = "Content-Length: ",
})

local exchanges = host.load("dispatch/exchanges")
local framing = host.load("protocols/lib/framing")
local json_text = host.load("protocols/lib/json_text")
local printable = host.load("util/text").printable
local F = {
    method = ProtoField.string("unixsock.json.method", "Method"),
    id = ProtoField.string("unixsock.json.id", "Id"),
    failure = ProtoField.string("unixsock.json.error", "Error"),
    head = ProtoField.string("unixsock.json.head", "Head"),
}
local proto = framing.proto(protocol, F)
local json = Dissector.get("json")
local MOST = 16 -- messages of a batch that are shown one by one

-- Adds what the object says, and gives it as words.
local function show_message(told, tree, pinfo)
    local function add(key, value)
        if value then tree:add(F[key], printable(value)):set_generated() end
    end
    add("method", told.method)
    add("id", told.id)
    add("failure", told.failure)
    local method, id = told.method and printable(told.method), told.id and " #" .. printable(told.id) or ""
    if told.kind == "answer" then
        exchanges.answer(told.id, told.failure, tree, pinfo)
        return told.failure and ("error%s %s"):format(id, printable(told.failure)) or "result" .. id
    elseif told.kind == "request" and method then
        exchanges.question("JSON", told.method, told.id, tree, pinfo)
        return method .. id
    end
    return method
end

local function show(message, pinfo, tree)
    local text = message:raw(0, message:len())
    local first = text:find("[{%[]")
    local line = text:find("[^%s%z\30\255]")
    if not line then return end
    -- A head, or a line that is no JSON, is shown as text.
    local is_json = first and (first == line or text:find("^Content%-", line)
        or (first == 5 or first == 9) and text:sub(1, 4):find("%z"))
    if not is_json then
        text = printable((text:sub(line):gsub("\r?\n$", "")))
        tree:add(proto, message:range(0, message:len()), "Line: " .. text)
        framing.info(pinfo, "JSON", text)
        return
    end
    pcall(json.call, json, message:range(first - 1):tvb(), pinfo, tree)
    local t = tree:add(proto, message:range(0, message:len()))
    if first > line then t:add(F.head, message:range(0, first - 1), printable(text:sub(1, first - 1))) end
    local all, at = {}, first
    if text:byte(first) == 91 then at = text:match("^%[%s*(){", first) end
    while at and #all < MOST do
        local told, stop = json_text.message(text, at)
        all[#all + 1] = show_message(told, t, pinfo)
        at = stop and text:byte(first) == 91 and text:match("^%s*,%s*(){", stop + 1)
    end
    local words = #all > 0 and table.concat(all, ", ") or printable((text:sub(first, first + 60):gsub("%s+", " ")))
    t:append_text(", " .. words)
    framing.info(pinfo, "JSON", words)
end

protocol.proto = framing.dissector(proto, json_text.scan, show, 2)
return protocol
