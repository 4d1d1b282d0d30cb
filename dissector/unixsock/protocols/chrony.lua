-- chrony's command and monitoring protocol, version 6: big-endian, a request or a reply in each datagram.
-- Source: chrony, candm.h.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local protocol = host.load("protocols/lib/declare")({
    name = "unixsock.chrony", title = "chrony Command Protocol",
    paths = {
        "*/chrony*.sock", "*/chrony/chronyc.*",
    },
    message = {
        "^\6\1\0\0\0.\0[\0-\9]", "^\6\2\0\0\0.\0[\0-\40]\0[\0-\31]",
    },
})

local exchanges = host.load("dispatch/exchanges")
local framing = host.load("protocols/lib/framing")
local COMMANDS = {
    [0] = "NULL", "ONLINE", "OFFLINE", "BURST", "MODIFY_MINPOLL", "MODIFY_MAXPOLL", "DUMP", "MODIFY_MAXDELAY",
    "MODIFY_MAXDELAYRATIO", "MODIFY_MAXUPDATESKEW", "LOGON", "SETTIME", "LOCAL", "MANUAL", "N_SOURCES", "SOURCE_DATA",
    "REKEY", "ALLOW", "ALLOWALL", "DENY", "DENYALL", "CMDALLOW", "CMDALLOWALL", "CMDDENY", "CMDDENYALL", "ACCHECK",
    "CMDACCHECK", "ADD_SERVER", "ADD_PEER", "DEL_SOURCE", "WRITERTC", "DFREQ", "DOFFSET", "TRACKING", "SOURCESTATS",
    "RTCREPORT", "TRIMRTC", "CYCLELOGS", "SUBNETS_ACCESSED", "CLIENT_ACCESSES", "CLIENT_ACCESSES_BY_INDEX",
    "MANUAL_LIST", "MANUAL_DELETE", "MAKESTEP", "ACTIVITY", "MODIFY_MINSTRATUM", "MODIFY_POLLTARGET",
    "MODIFY_MAXDELAYDEVRATIO", "RESELECT", "RESELECTDISTANCE", "MODIFY_MAKESTEP", "SMOOTHING", "SMOOTHTIME", "REFRESH",
    "SERVER_STATS", "CLIENT_ACCESSES_BY_INDEX2", "LOCAL2", "NTP_DATA", "ADD_SERVER2", "ADD_PEER2", "ADD_SERVER3",
    "ADD_PEER3", "SHUTDOWN", "ONOFFLINE", "ADD_SOURCE", "NTP_SOURCE_NAME", "RESET_SOURCES", "AUTH_DATA",
    "CLIENT_ACCESSES_BY_INDEX3", "SELECT_DATA", "RELOAD_SOURCES", "DOFFSET2", "MODIFY_SELECTOPTS",
    "MODIFY_OFFSET", "LOCAL3",
}
local REPLIES = {
    "NULL", "N_SOURCES", "SOURCE_DATA", "MANUAL_TIMESTAMP", "TRACKING", "SOURCESTATS", "RTC", "SUBNETS_ACCESSED",
    "CLIENT_ACCESSES", "CLIENT_ACCESSES_BY_INDEX", "MANUAL_LIST", "ACTIVITY", "SMOOTHING", "SERVER_STATS",
    "CLIENT_ACCESSES_BY_INDEX2", "NTP_DATA", "MANUAL_TIMESTAMP2", "MANUAL_LIST2", "NTP_SOURCE_NAME", "AUTH_DATA",
    "CLIENT_ACCESSES_BY_INDEX3", "SERVER_STATS2", "SELECT_DATA", "SERVER_STATS3", "SERVER_STATS4", "NTP_DATA2",
}
local STATUS = {
    [0] = "SUCCESS", "FAILED", "UNAUTH", "INVALID", "NOSUCHSOURCE", "INVALIDTS", "NOTENABLED", "BADSUBNET",
    "ACCESSALLOWED", "ACCESSDENIED", "NOHOSTACCESS", "SOURCEALREADYKNOWN", "TOOMANYSOURCES", "NORTC", "BADRTCFILE",
    "INACTIVE", "BADSAMPLE", "INVALIDAF", "BADPKTVERSION", "BADPKTLENGTH", "INVALIDNAME",
}
local TYPES = { [1] = "Request", [2] = "Reply" }
local REQUEST_HEADER, REPLY_HEADER = 20, 28

local F = {
    version = ProtoField.uint8("chrony.version", "Version"),
    type = ProtoField.uint8("chrony.type", "Type", base.DEC, TYPES),
    command = ProtoField.uint16("chrony.command", "Command", base.DEC, COMMANDS),
    attempt = ProtoField.uint16("chrony.attempt", "Attempt"),
    reply = ProtoField.uint16("chrony.reply", "Reply", base.DEC, REPLIES),
    status = ProtoField.uint16("chrony.status", "Status", base.DEC, STATUS),
    sequence = ProtoField.uint32("chrony.sequence", "Sequence", base.HEX),
    stratum = ProtoField.uint16("chrony.tracking.stratum", "Stratum"),
    sources = ProtoField.uint32("chrony.sources", "Number of sources"),
    data = ProtoField.bytes("chrony.data", "Data"),
}
local proto = framing.proto(protocol, F)

function proto.dissector(tvb, pinfo, tree)
    local length = tvb:len()
    if length < REQUEST_HEADER then return 0 end
    local kind = tvb:range(1, 1):uint()
    if not TYPES[kind] or kind == 2 and length < REPLY_HEADER then return 0 end
    local t = tree:add(proto, tvb:range(0, length))
    t:add(F.version, tvb:range(0, 1))
    t:add(F.type, tvb:range(1, 1))
    local command = tvb:range(4, 2):uint()
    local name = COMMANDS[command] or ("command %d"):format(command)
    t:add(F.command, tvb:range(4, 2))
    local header, info
    if kind == 1 then
        t:add(F.attempt, tvb:range(6, 2))
        t:add(F.sequence, tvb:range(8, 4))
        header, info = REQUEST_HEADER, "Request " .. name
        exchanges.question("CHRONY", name, tvb:raw(8, 4), t, pinfo)
    else
        local reply, status = tvb:range(6, 2):uint(), tvb:range(8, 2):uint()
        t:add(F.reply, tvb:range(6, 2))
        t:add(F.status, tvb:range(8, 2))
        t:add(F.sequence, tvb:range(16, 4))
        header = REPLY_HEADER
        local words = STATUS[status] or ("status %d"):format(status)
        info = ("Reply %s %s"):format(name, words)
        exchanges.answer(tvb:raw(16, 4), status ~= 0 and words ~= "ACCESSALLOWED" and words or nil, t, pinfo)
        if reply == 2 and length >= header + 4 then t:add(F.sources, tvb:range(header, 4)) end
        -- Reference id, then an address of 20 bytes, then the stratum.
        if reply == 5 and length >= header + 26 then t:add(F.stratum, tvb:range(header + 24, 2)) end
    end
    if length > header then t:add(F.data, tvb:range(header)) end
    t:append_text(", " .. info)
    framing.info(pinfo, "CHRONY", info)
    return length
end

protocol.proto = proto
return protocol
