-- The ssh-agent protocol: u32 length, type, contents; big-endian.  Source: draft-ietf-sshm-ssh-agent.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local protocol = host.load("protocols/lib/declare")({
    name = "unixsock.ssh_agent", title = "SSH Agent",
    paths = {
        "*/ssh-*/agent.*", "*/openssh_agent", "*/keyring/ssh", "*S.gpg-agent.ssh",
        "*ssh*agent*", "*ssh*agent*.sock", "*/gcr/ssh",
    },
    stream = { -- REQUEST_IDENTITIES, REMOVE_ALL_IDENTITIES, and those that begin with a key or a name
        "^\0\0\0\1[\11\19]", "^\0\0..[\13\17\18\25]\0\0\0.[se][scdk][hs][%-a]",
        "^\0\0..\13\0\0..\0\0\0.[se][scdk][hs][%-a]", "^\0\0..\27\0\0\0.[%w%-]+@",
    },
})

local printable = host.load("util/text").printable
local exchanges = host.load("dispatch/exchanges")
local framing = host.load("protocols/lib/framing")
local TYPES = {
    [1] = "REQUEST_RSA_IDENTITIES", [2] = "RSA_IDENTITIES_ANSWER", [9] = "REMOVE_ALL_RSA_IDENTITIES",
    [5] = "FAILURE", [6] = "SUCCESS", [11] = "REQUEST_IDENTITIES", [12] = "IDENTITIES_ANSWER", [13] = "SIGN_REQUEST",
    [14] = "SIGN_RESPONSE", [17] = "ADD_IDENTITY", [18] = "REMOVE_IDENTITY", [19] = "REMOVE_ALL_IDENTITIES",
    [20] = "ADD_SMARTCARD_KEY", [21] = "REMOVE_SMARTCARD_KEY", [22] = "LOCK", [23] = "UNLOCK",
    [25] = "ADD_ID_CONSTRAINED", [26] = "ADD_SMARTCARD_KEY_CONSTRAINED", [27] = "EXTENSION",
    [28] = "EXTENSION_FAILURE", [29] = "EXTENSION_RESPONSE",
}
local MAX = 1048576 -- no agent takes more

local F = {
    length = ProtoField.uint32("ssh_agent.length", "Length"),
    type = ProtoField.uint8("ssh_agent.type", "Type", base.DEC, TYPES),
    keys = ProtoField.uint32("ssh_agent.keys", "Number of keys"),
    algorithm = ProtoField.string("ssh_agent.algorithm", "Key or signature algorithm"),
    comment = ProtoField.string("ssh_agent.comment", "Comment"),
    extension = ProtoField.string("ssh_agent.extension", "Extension"),
    blob = ProtoField.bytes("ssh_agent.blob", "Key or signature"),
    data = ProtoField.bytes("ssh_agent.data", "Data to sign"),
    flags = ProtoField.uint32("ssh_agent.flags", "Signature flags", base.HEX),
}
local proto = framing.proto(protocol, F)

local function length(text, at)
    local size = Struct.unpack(">I4", text, at + 1)
    return size >= 1 and size <= MAX and size + 4 or false
end

-- The SSH string at `at` as a range (nil if it is empty or cut), and where the next one begins.
local function string_at(tvb, at)
    if not at or at + 4 > tvb:len() then return nil end
    local size = tvb:range(at, 4):uint()
    if at + 4 + size > tvb:len() then return nil end
    return size > 0 and tvb:range(at + 4, size) or nil, at + 4 + size
end

local function add_blob(t, tvb, at)
    local blob, after = string_at(tvb, at)
    if blob then
        local item = t:add(F.blob, blob)
        local name = string_at(tvb, at + 4)
        if name then item:add(F.algorithm, name, printable(name:raw())) end
    end
    return after
end

local function show(message, pinfo, tree)
    local t = tree:add(proto, message:range(0, message:len()))
    if message:len() < 5 then return end
    t:add(F.length, message:range(0, 4))
    local kind = message:range(4, 1):uint()
    t:add(F.type, message:range(4, 1))
    local info = TYPES[kind] or ("type %d"):format(kind)
    if kind == 12 and message:len() >= 9 then
        local count = message:range(5, 4):uint()
        t:add(F.keys, message:range(5, 4))
        info = ("%s, %d keys"):format(info, count)
        local at = 9
        while at and count > 0 do
            at = add_blob(t, message, at)
            local comment, after = string_at(message, at)
            if comment then t:add(F.comment, comment, printable(comment:raw())) end
            at, count = after, count - 1
        end
    elseif kind == 13 then
        local at = add_blob(t, message, 5)
        local data, after = string_at(message, at)
        if data then t:add(F.data, data) end
        if after and after + 4 <= message:len() then t:add(F.flags, message:range(after, 4)) end
    elseif kind == 14 or kind == 18 then
        add_blob(t, message, 5)
    elseif kind == 27 then
        local name = string_at(message, 5)
        if name then
            t:add(F.extension, name, printable(name:raw()))
            info = info .. " " .. printable(name:raw())
        end
    end
    t:append_text(", " .. info)
    framing.info(pinfo, "SSH-AGENT", info)
    if host.current.way.src_is_server then
        exchanges.answer(nil, (kind == 5 or kind == 28) and TYPES[kind] or nil, t, pinfo)
    else
        exchanges.question("SSH-AGENT", TYPES[kind] or ("type %d"):format(kind), nil, t, pinfo)
    end
end

protocol.proto = framing.dissector(proto, framing.by_head(4, length), show, 0, nil, framing.in_order)
return protocol
