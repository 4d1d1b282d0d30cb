-- A stream's record as a TCP segment, so that Wireshark's own dissector reassembles it.
--
-- Sequence and acknowledgment numbers are the record's own positions plus one, the addresses are the
-- sockets' (the capture names them in name resolution blocks), the server's port stands for the path: the
-- user's Decode As for that port is then a choice for the path, in this and in other captures.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local attributes = host.load("util/attributes")
local payload = host.load("dispatch/payload")
local record = host.load("record/parse")
local layout = host.load("record/format")
local EVENT, DATA, choices = layout.EVENT, layout.EVENT.DATA, host.prefs

local FIN, SYN, PSH_ACK = 0x11, 0x02, 0x18
local M = {}

local pack, unpack, sub, pcall = Struct.pack, Struct.unpack, string.sub, pcall
local begin, finish = payload.begin, payload.finish
local tcp = Dissector.get("tcp")
-- Functions instead of methods: Wireshark looks a method up anew for each call, which costs as much again.
local call, new_bytes, as_tvb = tcp.call, ByteArray.new, ByteArray.tvb
local set_src, set_dst = attributes.setter("Pinfo", "src"), attributes.setter("Pinfo", "dst")

-- A socket's pseudo address: pcapng.py says where its bits are from.  Version 0.1.0 had another prefix; the file says
-- by its names which it is, if names are shown at all.
local PREFIX, OLD_PREFIX = "fdfe:756e:6978:0:%x:%x:%x:%x", "fd75:6e69:7873:0:%x:%x:%x:%x"

-- Addresses are dear to make; a bounded number of them is kept.
local addresses, address_count

function M.reset()
    addresses, address_count = {}, 0
end

M.reset()

local function address(sock)
    local known = addresses[sock]
    if known then return known end
    if address_count >= 4096 then M.reset() end
    local a, b, c, d = unpack("<I2I2I2I2", sock)
    known = Address.ipv6(OLD_PREFIX:format(d, c, b, a))
    -- As text an address is its name, if it has one.
    if tostring(known):find("^fd75:6e69:7873:") then known = Address.ipv6(PREFIX:format(d, c, b, a)) end
    addresses[sock], address_count = known, address_count + 1
    return known
end

-- What is the same in all segments of the record's way: the ports as four bytes, and the addresses.
local function prepare(rec)
    local way = rec.way
    local src, dst, server_port = record.src_sock(way), record.dst_sock(way), payload.of(rec).port
    if way.src_is_server then
        way.ports = pack(">I2I2", server_port, payload.client_port(dst))
    else
        way.ports = pack(">I2I2", payload.client_port(src), server_port)
    end
    way.src_address, way.dst_address = address(src), address(dst)
end

-- Puts the sockets' pseudo addresses into pinfo.  `tree`: the packet's, if it is one of a stream.
local function put_address(rec, pinfo, tree)
    local way = rec.way
    if not way.ports then prepare(rec) end
    set_src(pinfo, way.src_address)
    set_dst(pinfo, way.dst_address)
    -- Follow Stream looks for the selected packet's conversation by these, which nobody hides again.
    if rec.asked and tree and tree.visible then
        pinfo.net_src, pinfo.net_dst = way.src_address, way.dst_address
    end
end

M.address = put_address

-- The TCP flags of an event other than DATA, or nil if it takes no part in the stream of bytes.
local function tcp_flags(rec, event)
    local says = rec.says
    if event == EVENT.CONNECT then
        return says.from_start and rec.seq_lo == 0 and rec.seq_hi == 0 and SYN or nil
    end
    local ends = event == EVENT.CLOSE or event == EVENT.SHUTDOWN and (says.el.how == 1 or says.el.how == 2)
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

local NEXT = 4294967296 -- sequence numbers begin anew here

-- Hands the record, given its bytes too, to the TCP dissector.  Gives what payload.begin or finish gives.
function M.dissect(rec, bytes, tvb, pinfo, tree)
    local way, event, caplen, from = rec.way, rec.event, rec.caplen, rec.says.header_len
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
    local alone = begin(rec, bytes)
    -- A C exception in a dissector arrives as a Lua error when the tree already says "Malformed Packet".
    pcall(call, tcp, as_tvb(new_bytes(segment, true), "Unix stream"), pinfo, tree)
    return alone or finish()
end

return M
