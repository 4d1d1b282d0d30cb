-- PulseAudio's native protocol: 20-byte descriptors (u32 length, channel, offset, flags; big-endian), then packets
-- of tagged values on channel 0xffffffff, or sound.  Source: PulseAudio, pstream.c and native-common.h.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local protocol = host.load("protocols/lib/declare")({
    name = "unixsock.pulse", title = "PulseAudio Native Protocol",
    paths = {
        "*/pulse/native",
    },
    stream = {
        "^\0\0[\0-\16].\255\255\255\255\0\0\0\0\0\0\0\0\0\0\0\0",
    },
})

local exchanges = host.load("dispatch/exchanges")
local framing = host.load("protocols/lib/framing")
local COMMANDS = {
    [0] = "ERROR", "TIMEOUT", "REPLY", "CREATE_PLAYBACK_STREAM", "DELETE_PLAYBACK_STREAM", "CREATE_RECORD_STREAM",
    "DELETE_RECORD_STREAM", "EXIT", "AUTH", "SET_CLIENT_NAME", "LOOKUP_SINK", "LOOKUP_SOURCE",
    "DRAIN_PLAYBACK_STREAM", "STAT", "GET_PLAYBACK_LATENCY", "CREATE_UPLOAD_STREAM", "DELETE_UPLOAD_STREAM",
    "FINISH_UPLOAD_STREAM", "PLAY_SAMPLE", "REMOVE_SAMPLE", "GET_SERVER_INFO", "GET_SINK_INFO",
    "GET_SINK_INFO_LIST", "GET_SOURCE_INFO", "GET_SOURCE_INFO_LIST", "GET_MODULE_INFO", "GET_MODULE_INFO_LIST",
    "GET_CLIENT_INFO", "GET_CLIENT_INFO_LIST", "GET_SINK_INPUT_INFO", "GET_SINK_INPUT_INFO_LIST",
    "GET_SOURCE_OUTPUT_INFO", "GET_SOURCE_OUTPUT_INFO_LIST", "GET_SAMPLE_INFO", "GET_SAMPLE_INFO_LIST", "SUBSCRIBE",
    "SET_SINK_VOLUME", "SET_SINK_INPUT_VOLUME", "SET_SOURCE_VOLUME", "SET_SINK_MUTE", "SET_SOURCE_MUTE",
    "CORK_PLAYBACK_STREAM", "FLUSH_PLAYBACK_STREAM", "TRIGGER_PLAYBACK_STREAM", "SET_DEFAULT_SINK",
    "SET_DEFAULT_SOURCE", "SET_PLAYBACK_STREAM_NAME", "SET_RECORD_STREAM_NAME", "KILL_CLIENT", "KILL_SINK_INPUT",
    "KILL_SOURCE_OUTPUT", "LOAD_MODULE", "UNLOAD_MODULE", "ADD_AUTOLOAD", "REMOVE_AUTOLOAD", "GET_AUTOLOAD_INFO",
    "GET_AUTOLOAD_INFO_LIST", "GET_RECORD_LATENCY", "CORK_RECORD_STREAM", "FLUSH_RECORD_STREAM",
    "PREBUF_PLAYBACK_STREAM", "REQUEST", "OVERFLOW", "UNDERFLOW", "PLAYBACK_STREAM_KILLED",
    "RECORD_STREAM_KILLED", "SUBSCRIBE_EVENT",
}
local F = {
    length = ProtoField.uint32("pulse.length", "Length"),
    channel = ProtoField.uint32("pulse.channel", "Channel", base.HEX),
    command = ProtoField.uint32("pulse.command", "Command", base.DEC, COMMANDS),
    tag = ProtoField.uint32("pulse.tag", "Tag", base.HEX),
    data = ProtoField.bytes("pulse.data", "Data"),
}
local proto = framing.proto(protocol, F)

local ERROR, REPLY = 0, 2

local function length(text, at)
    local size = Struct.unpack(">I4", text, at + 1)
    return size <= 16777216 and size + 20 or false
end

local function show(message, pinfo, tree)
    local t = tree:add(proto, message:range(0, message:len()))
    if message:len() < 20 then return end
    t:add(F.length, message:range(0, 4))
    t:add(F.channel, message:range(4, 4))
    local info = "memory block"
    if message:range(4, 4):uint() == 4294967295 then
        info = "packet"
        -- Two tagged numbers begin each packet: 'L' command, 'L' tag.
        if message:len() >= 30 and message:raw(20, 1) == "L" and message:raw(25, 1) == "L" then
            local command = message:range(21, 4):uint()
            t:add(F.command, message:range(21, 4))
            t:add(F.tag, message:range(26, 4))
            info = COMMANDS[command] or ("command %d"):format(command)
            local tag = message:raw(26, 4)
            if command == ERROR or command == REPLY then
                exchanges.answer(tag, command == ERROR and "ERROR" or nil, t, pinfo)
            elseif not host.current.way.src_is_server then
                exchanges.question("PULSE", info, tag, t, pinfo)
            end
        end
    end
    if message:len() > 20 then t:add(F.data, message:range(20)) end
    framing.info(pinfo, "PULSE", info)
end

protocol.proto = framing.dissector(proto, framing.by_head(20, length), show, 0)
return protocol
