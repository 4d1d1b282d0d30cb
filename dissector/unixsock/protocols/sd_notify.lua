-- sd_notify: a datagram of NAME=value lines.  Source: sd_notify(3).
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local protocol = host.load("protocols/lib/declare")({
    name = "unixsock.notify", title = "systemd Notification",
    paths = {
        "*/systemd/notify", "@*/systemd/notify*", "*/notify*",
    },
    message = {
        "^READY=1", "^STATUS=", "^STOPPING=1", "^RELOADING=1", "^WATCHDOG[=_]", "^MAINPID", "^BARRIER=1", "^FDSTORE",
        "^FDNAME=", "^EXTEND_TIMEOUT_USEC=", "^ERRNO=%d", "^BUSERROR=", "^VARLINKERROR=", "^EXIT_STATUS=",
        "^NOTIFYACCESS=", "^MONOTONIC_USEC=%d",
    },
})

local printable = host.load("util/text").printable
local framing = host.load("protocols/lib/framing")
local F = {
    line = ProtoField.string("sd_notify.assignment", "Assignment"),
    name = ProtoField.string("sd_notify.name", "Name"),
    value = ProtoField.string("sd_notify.value", "Value"),
}
local proto = framing.proto(protocol, F)

function proto.dissector(tvb, pinfo, tree)
    local text = tvb:raw(0, tvb:len())
    local t = tree:add(proto, tvb:range(0, tvb:len()))
    local count = 0
    for at, line in text:gmatch("()([^\n]+)") do
        count = count + 1
        if count > framing.MOST_FIELDS then
            framing.more_fields(t, tvb, at - 1, select(2, text:sub(at):gsub("[^\n]+", "")))
            break
        end
        local shown = printable(line)
        local item = t:add(F.line, tvb:range(at - 1, #line), shown)
        local name, value = line:match("^([^=]*)=(.*)$")
        if name then
            if #name > 0 then item:add(F.name, tvb:range(at - 1, #name), printable(name)) end
            if #value > 0 then item:add(F.value, tvb:range(at + #name, #value), printable(value)) end
        end
        framing.info(pinfo, "SD-NOTIFY", shown)
    end
    return tvb:len()
end

protocol.proto = proto
return protocol
