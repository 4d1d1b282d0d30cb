-- A stream's record as a TCP segment, so that Wireshark's own dissector reassembles it.
--
-- Sequence and acknowledgment numbers are the record's own positions plus one, the addresses are the
-- sockets' (the capture names them in name resolution blocks), the server's port stands for the path: the
-- user's Decode As for that port is then a choice for the path, in this and in other captures.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local addresses = host.load("transport/addresses")
local attributes = host.load("util/attributes")
local payload = host.load("dispatch/payload")
local record = host.load("record/parse")
local layout = host.load("record/format")
local EVENT, DATA, choices = layout.EVENT, layout.EVENT.DATA, host.prefs

local FIN, SYN, PSH_ACK = 0x11, 0x02, 0x18
local M = {}

local pack, sub, pcall = Struct.pack, string.sub, pcall
local begin, finish = payload.begin, payload.finish
local tcp = Dissector.get("tcp")
-- Functions instead of methods: Wireshark looks a method up anew for each call, which costs as much again.
local call, new_bytes, as_tvb = tcp.call, ByteArray.new, ByteArray.tvb
local set_src, set_dst = attributes.setter("Pinfo", "src"), attributes.setter("Pinfo", "dst")

-- What is the same in all segments of the record's way: the ports as four bytes, and the addresses.
local function prepare(rec)
    local way = rec.way
    local src, dst, server_port = record.src_sock(way), record.dst_sock(way), payload.of(rec).port
    if way.src_is_server then
        way.ports = pack(">I2I2", server_port, payload.client_port(dst))
    else
        way.ports = pack(">I2I2", payload.client_port(src), server_port)
    end
    way.src_address, way.dst_address = addresses.of_socket(src), addresses.of_socket(dst)
end

-- Puts the sockets' pseudo addresses into pinfo.  `tree`: the packet's, if it is one of a stream.
local function put_address(rec, pinfo, tree)
    local way = rec.way
    if not way.ports then prepare(rec) end
    set_src(pinfo, way.src_address)
    set_dst(pinfo, way.dst_address)
    -- Follow Stream looks for the selected packet's conversation by these, which nothing hides again.
    if rec.asked and tree and tree.visible then
        pinfo.net_src, pinfo.net_dst = way.src_address, way.dst_address
    end
end

M.address = put_address

-- The TCP flags of an event other than DATA, or nil if it takes no part in the stream of bytes.
local function tcp_flags(rec, event)
    local shared = rec.shared
    if event == EVENT.CONNECT then
        return shared.from_start and rec.seq_lo == 0 and rec.seq_hi == 0 and SYN or nil
    end
    local ends = event == EVENT.CLOSE or event == EVENT.SHUTDOWN and (shared.el.how == 1 or shared.el.how == 2)
    if not ends then return nil end
    -- A close after a shutdown ends nothing more.  The frame that ended the direction is remembered.
    local conversation, sock = rec.way.conversation, record.src_sock(rec.way)
    local finished = conversation.finished or {}
    conversation.finished = finished
    finished[sock] = finished[sock] or rec.number
    return finished[sock] == rec.number and FIN or nil
end

-- The TCP header after the sequence numbers: length, flags, window, checksum, urgent pointer.
local REST = {}
for _, flags in ipairs({ FIN, SYN, PSH_ACK }) do REST[flags] = pack(">BBI2I2I2", 0x50, flags, 65535, 0, 0) end

-- In Wireshark's window: where a layer that is not in the record is hung, so that it is not taken for one that is.
local in_window = gui_enabled()
function M.layer(rec, own_tree, title)
    if not (in_window and own_tree and own_tree.visible and payload.comes_here(rec)) then return nil end
    return own_tree:add(host.proto, title)
end

local NEXT = 4294967296 -- sequence numbers begin anew here

-- Hands the record, given its bytes too, to the TCP dissector.  Gives what payload.begin or finish gives.
-- `own_tree`: the record's, or nil.
function M.dissect(rec, bytes, tvb, pinfo, tree, own_tree)
    local way, event, caplen, from = rec.way, rec.event, rec.caplen, rec.shared.header_len
    if event == DATA and caplen == 0 then return false end
    if not choices.reassemble then
        if event ~= DATA then return false end
        put_address(rec, pinfo, tree)
        return payload.dissect_raw(rec, tvb:range(from, caplen):tvb(), pinfo, tree)
    end
    local flags = event == DATA and PSH_ACK or tcp_flags(rec, event)
    if not flags then return false end
    put_address(rec, pinfo, tree)
    local seq, ack = rec.seq_lo + rec.offset + 1, rec.ack_lo + 1
    if flags == SYN then seq, ack = 0, 0 end
    local segment = way.ports .. pack(">I4I4", seq % NEXT, ack % NEXT) .. REST[flags]
        .. sub(bytes, from + 1, from + caplen)
    local elsewhere = M.layer(rec, own_tree, "A TCP segment made of it, for reassembly and Follow Stream")
    local alone = begin(rec, bytes, tree, elsewhere)
    -- A C exception in a dissector arrives as a Lua error when the tree already shows "Malformed Packet".
    pcall(call, tcp, as_tvb(new_bytes(segment, true), "Unix stream"), pinfo, elsewhere or tree)
    return alone or finish()
end

return M
