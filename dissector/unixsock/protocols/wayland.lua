-- Wayland: u32 object, u16 opcode, u16 size in the machine's byte order (read as little-endian), then arguments.
-- Object 1 is always the display; what the others are is learned where they are made.
-- Source: The Wayland Protocol, Wire Format.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

local protocol = host.load("protocols/lib/declare")({
    name = "unixsock.wayland", title = "Wayland",
    paths = {
        "*/wayland-*",
    },
    stream = { -- wl_display.sync or get_registry
        "^\1\0\0\0[\0\1]\0\12\0",
    },
    joined = function(text) -- two messages or more: numbers of objects are small, or count from 0xff000000 on
        local at, count = 1, 0
        while at <= #text do
            if at + 7 > #text then return false end
            local low, high, opcode, size = Struct.unpack("<I2I2I2I2", text, at)
            if high ~= 0 and high ~= 0xff00 or low + high == 0 or opcode > 63 or size < 8 or size % 4 > 0
                or size > 4096 then
                return false
            end
            at, count = at + size, count + 1
        end
        return at == #text + 1 and count >= 2
    end,
})

local exchanges = host.load("dispatch/exchanges")
local framing = host.load("protocols/lib/framing")
local printable = host.load("util/text").printable
local F = {
    object = ProtoField.uint32("wayland.object", "Object"),
    opcode = ProtoField.uint16("wayland.opcode", "Opcode"),
    size = ProtoField.uint16("wayland.size", "Size"),
    message = ProtoField.string("wayland.message", "Message"),
    global = ProtoField.string("wayland.interface", "Interface"),
    argument = ProtoField.string("wayland.argument", "Argument"),
    args = ProtoField.bytes("wayland.args", "Arguments"),
}
local proto = framing.proto(protocol, F)

local function length(text, at)
    local low, high = text:byte(at + 7, at + 8)
    local size = low + high * 256
    return size >= 8 and size % 4 == 0 and size
end

---------------------------------------------------------------------------------------------------
-- What objects are

-- Numbers are used again: in a frame, an object is what it was made last before.  Per conversation and object is kept
-- in which frames it became what, a bounded number of changes; where they are forgotten it is shown as unknown.
-- What the messages of a frame make is in `here`, anew in every pass.
local MOST = 16384 -- changes kept of a conversation: at twice as many, the older half is forgotten
local here, here_number, here_conversation, visited = {}, nil, nil, nil

-- A change is one number: frame * SHIFT + interface.
local SHIFT = 4096
local numbers, interfaces = {}, {}
local function number_of(interface)
    local number = numbers[interface]
    if number then return number end
    if #interfaces + 1 == SHIFT then return numbers.object end -- made up: no program has so many
    interfaces[#interfaces + 1], numbers[interface] = interface, #interfaces + 1
    return #interfaces
end
number_of("object")

local function no_objects() return { changes = { { number_of("wl_display") } }, count = 1 } end

-- What is known of the current record's conversation, given its pinfo when a message begins.
local function objects(pinfo)
    local conversation, number = host.current.way.conversation, host.current.number
    if here_number ~= number or here_conversation ~= conversation then
        here, here_number, here_conversation = {}, number, conversation
    end
    if pinfo then visited = pinfo.visited end
    conversation.wayland = conversation.wayland or no_objects()
    return conversation.wayland
end

local function interface_of(object)
    local known = objects()
    if here[object] then return here[object] end
    local changes = known.changes[object]
    if not changes then return nil end
    local low, high, now = 0, #changes, host.current.number * SHIFT
    while low < high do -- the last before this frame
        local middle = math.ceil((low + high) / 2)
        if changes[middle] < now then low = middle else high = middle - 1 end
    end
    return low > 0 and interfaces[changes[low] % SHIFT] or nil
end

-- Forgets the older half of the changes, but for what each object is now; everything, if there are too many objects.
local function forget(known)
    local all = {}
    for _, changes in pairs(known.changes) do
        for i = 1, #changes do all[#all + 1] = changes[i] end
    end
    table.sort(all)
    local limit, count = all[math.ceil(#all / 2)], 0
    for object, changes in pairs(known.changes) do
        local left = {}
        for i = 1, #changes do
            if i == #changes or changes[i] > limit then left[#left + 1] = changes[i] end
        end
        known.changes[object], count = left, count + #left
    end
    known.count = count
    if count > MOST * 3 / 2 then known.changes, known.count = no_objects().changes, 1 end
end

local function learn(object, interface)
    local known, number = objects(), number_of(interface)
    here[object] = interfaces[number]
    if visited then return end
    local changes = known.changes[object]
    if not changes then
        changes = {}
        known.changes[object] = changes
    end
    local last, change = changes[#changes], host.current.number * SHIFT + number
    if last and last >= host.current.number * SHIFT then
        changes[#changes] = change
    elseif not last or last % SHIFT ~= number then
        changes[#changes + 1], known.count = change, known.count + 1
        if known.count > 2 * MOST then forget(known) end
    end
end

---------------------------------------------------------------------------------------------------
-- Messages

local NAMES = host.load("protocols/lib/wayland_names")

-- The name of a message and its arguments {name, type, interface of a new object}; nil if it isn't known.
local function signature(interface, request, opcode)
    local messages = NAMES[interface]
    messages = messages and messages[request and "requests" or "events"]
    local words = messages and messages[opcode + 1]
    if not words then return nil end
    local name, rest = words:match("^(%S+)%s*(.*)$")
    local arguments = {}
    for argument, kind, made in rest:gmatch("([%w_]+):(%a)=?([%w_]*)") do
        if kind == "n" and made == "" then
            arguments[#arguments + 1] = { "interface", "s" }
            arguments[#arguments + 1] = { "version", "u" }
        end
        arguments[#arguments + 1] = { argument, kind, made ~= "" and made or nil }
    end
    return name, arguments
end

-- An object as interface#number.
local function object_text(object)
    if object == 0 then return "nil" end
    return ("%s#%d"):format(interface_of(object) or "object", object)
end

-- The argument of type `kind` at `at`: its bytes, its text and its value; nil where the message ends before it.
local function read(message, at, kind)
    local left = message:len() - at
    if kind == "h" then return 0, "descriptor" end
    if left < 4 then return nil end
    local number = message:range(at, 4):le_uint()
    if kind == "s" or kind == "a" then
        local size = 4 + number + (-number) % 4
        if size > left then return nil end
        if kind == "a" then return size, ("%d bytes"):format(number) end
        local value = number > 0 and message:raw(at + 4, number - 1) or ""
        return size, printable(value), value
    elseif kind == "i" then
        return 4, tostring(message:range(at, 4):le_int())
    elseif kind == "f" then
        return 4, ("%g"):format(message:range(at, 4):le_int() / 256)
    elseif kind == "o" or kind == "n" then
        return 4, object_text(number), number
    end
    return 4, ("%d"):format(number)
end

-- Adds the arguments to `t`, learns of objects that they make; gives the interface's name in wl_registry's messages.
local function show_arguments(message, t, arguments)
    local at, named = 8, nil
    for _, argument in ipairs(arguments) do
        local size, shown, value = read(message, at, argument[2])
        if not size then break end
        if argument[2] == "s" and argument[1] == "interface" then
            named = value
            if size > 4 then t:add(F.global, message:range(at + 4, #value), shown) end
        elseif argument[2] == "n" then
            learn(value, argument[3] or named or "object")
            shown = object_text(value)
        end
        t:add(F.argument, message:range(at, size), ("%s: %s"):format(argument[1], shown))
        at = at + size
    end
    return named
end

-- wl_registry.global and .bind carry an interface's name: they are known by it where the registry's making was missed.
local function is_registry(message)
    if message:len() < 20 then return false end
    local size = message:range(12, 4):le_uint()
    return size >= 4 and 16 + size <= message:len() and message:raw(16, size - 1):find("^%l[%w_]+_[%w_]+$") ~= nil
end

local function show(message, pinfo, tree)
    local t = tree:add(proto, message:range(0, message:len()))
    if message:len() < 8 then return end
    local object, opcode = message:range(0, 4):le_uint(), message:range(4, 2):le_uint()
    objects(pinfo)
    t:add_le(F.object, message:range(0, 4))
    t:add_le(F.opcode, message:range(4, 2))
    t:add_le(F.size, message:range(6, 2))
    local request = not host.current.way.src_is_server
    local interface = interface_of(object)
    if not interface and opcode == 0 and is_registry(message) then
        interface = "wl_registry"
        learn(object, interface)
    end
    local name, arguments = signature(interface, request, opcode)
    local words = name and ("%s.%s"):format(interface, name)
        or ("%s %s %d"):format(object_text(object), request and "request" or "event", opcode)
    if name then
        local named = show_arguments(message, t, arguments)
        if named and interface == "wl_registry" then words = words .. " " .. printable(named) end
    elseif message:len() > 8 then
        t:add(F.args, message:range(8))
    end
    t:add(F.message, message:range(0, 8), words)
    if interface == "wl_display" and name == "sync" and message:len() >= 12 then -- a round trip
        exchanges.question("WAYLAND", words, message:range(8, 4):le_uint(), t, pinfo)
    elseif interface == "wl_callback" and name == "done" then
        exchanges.answer(object, nil, t, pinfo)
    elseif interface == "wl_display" and name == "error" then
        exchanges.failure(words, t)
    end
    t:append_text(", " .. words)
    framing.info(pinfo, "WAYLAND", words)
end

protocol.proto = framing.dissector(proto, framing.by_head(8, length), show, 0) -- show() learns what objects are
return protocol
