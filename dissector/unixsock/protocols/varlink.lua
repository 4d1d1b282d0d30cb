-- Varlink: JSON objects, each ended by a NUL.  Source: varlink.org, Service.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local protocol = host.load("protocols/lib/declare")({
    name = "unixsock.varlink", title = "Varlink",
    paths = {
        "*/io.systemd*", "*/org.varlink*", "*varlink*", "*/systemd/userdb/*",
    },
    stream = {
        "^{\"method\":\"[%w%.]+%.[%w]+\"",
    },
})

local printable = host.load("util/text").printable
local exchanges = host.load("dispatch/exchanges")
local framing = host.load("protocols/lib/framing")
local json_text = host.load("protocols/lib/json_text")
local F = {
    method = ProtoField.string("varlink.method", "Method"),
    error = ProtoField.string("varlink.error", "Error"),
    reply = ProtoField.bool("varlink.reply", "Reply"),
    more = ProtoField.bool("varlink.more", "More replies wanted"),
    continues = ProtoField.bool("varlink.continues", "More replies follow"),
    oneway = ProtoField.bool("varlink.oneway", "No reply wanted"),
}
local proto = framing.proto(protocol, F)
local json = Dissector.get("json")

local function show(message, pinfo, tree)
    local text = message:raw(0, message:len())
    local t = tree:add(proto, message:range(0, message:len()))
    local members = json_text.members(text, text:find("{", 1, true) or 1)
    local function string_of(name) return members[name] and members[name].kind == "string" and members[name].text end
    local method, failure = string_of("method"), string_of("error")
    local flags = {}
    for _, flag in ipairs({ "more", "continues", "oneway" }) do
        flags[flag] = members[flag] and members[flag].text == "true"
        if flags[flag] then t:add(F[flag], true) end
    end
    local info = "reply"
    if method then
        info = printable(method)
        t:add(F.method, info)
        if not flags.oneway then exchanges.question("Varlink", method, nil, t, pinfo) end
    else
        if failure then
            info = "error " .. printable(failure)
            t:add(F.error, printable(failure))
        else
            t:add(F.reply, true)
        end
        if text:find("[^%z]") then exchanges.answer(nil, failure, t, pinfo, flags.continues) end
    end
    t:append_text(", " .. info)
    local stop = text:byte(-1) == 0 and #text - 1 or #text
    if stop > 0 then pcall(json.call, json, message:range(0, stop):tvb(), pinfo, tree) end
    framing.info(pinfo, "VARLINK", info)
end

protocol.proto = framing.dissector(proto, framing.until_byte("\0"), show, 2, framing.count_byte("\0"),
    framing.in_order)
return protocol
