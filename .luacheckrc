-- Wireshark's Lua: 5.2 up to 4.2, 5.4 from 4.4 on.
std = "max"
max_line_length = 120
read_globals = {
    "Address", "ByteArray", "Dissector", "DissectorTable", "Listener", "Pref", "Proto", "ProtoExpert",
    "ProtoField", "Struct", "TextWindow", "TreeItem", "Tvb", "UInt64", "base", "copy_to_clipboard", "expert",
    "Dir", "NSTime", "frametype", "ftypes", "gui_enabled", "register_menu", "warn",
    "register_stat_cmd_arg", "report_failure", "retap_packets", "set_plugin_info", "wtap", "MENU_STAT_GENERIC", "MENU_STAT_UNSORTED", "MENU_TOOLS_UNSORTED",
}
