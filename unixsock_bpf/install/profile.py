"""Wireshark's configuration profile "Unix sockets", as the files that make it up.

Read by Wireshark 4.0 to 4.6.  Source of the formats: what those versions write.
"""

from __future__ import annotations

NAME = "Unix sockets"

#: Wireshark writes this file itself, each time it ends: window sizes, columns, tabs.
RECENT = "recent"

# Names come from the capture itself, never from a name server.  The path has a column, so Info needs none.
_PREFERENCES = """\
# Columns for Unix sockets
gui.column.format:
\t"No.", "%m",
\t"Time", "%t",
\t"Source", "%s",
\t"Destination", "%d",
\t"Path", "%Cus:unixsock.path:0:R",
\t"Protocol", "%p",
\t"Length", "%Cus:unixsock.len:0:R",
\t"Info", "%i"

nameres.network_name: TRUE
nameres.use_external_name_resolver: FALSE
unixsock.path_in_info: FALSE
"""

_RECENT = """\
# Unix sockets: widths of the columns in pixels, the windows' tabs, the toolbar
column.width:
\t%m, 60,
\t%t, 110,
\t%s, 160,
\t%d, 160,
\t%Cus:unixsock.path, 260,
\t%p, 95,
\t%Cus:unixsock.len, 60,
\t%i, 500

gui.conversation_tabs: TCP,UDP
gui.endpoint_tabs: TCP,UDP
gui.interface_toolbar_show: "Unix sockets"
"""

# Dark text on light rows, but for what should stand out; with both colours given, themes do not matter.
_COLOURS = """\
# Colouring rules for Unix sockets: the first that matches counts
@Lost messages@unixsock.event == 6@[42148,0,0][65535,64764,40092]
@Failed sends@unixsock.event in {5, 7, 8}@[64250,43690,43690][4626,10023,11822]
@Malformed@_ws.malformed@[4626,10023,11822][65535,45232,45232]
@Passed descriptors@unixsock.fds.count > 0@[65535,55769,40092][4626,10023,11822]
@Connections@unixsock.event in {1, 2, 3, 4}@[61166,59110,51400][4626,10023,11822]
@Datagrams@unixsock.type == 2@[56026,61166,65535][4626,10023,11822]
@Sequenced packets@unixsock.type == 5@[60138,56540,65535][4626,10023,11822]
@Streams@unixsock.type == 1@[58596,65535,51143][4626,10023,11822]
"""

# ${...}: of the packet that is selected.
_BUTTONS = """\
"TRUE","Errors","unixsock.error","Sends and connects that failed"
"TRUE","Refused","unixsock.event == 7","Connects and sends that the kernel refused"
"TRUE","Losses","unixsock.event == 6 or unixsock.flags.truncated","Messages that were lost or cut short"
"TRUE","Descriptors","unixsock.fds.count","Messages with file descriptors"
"TRUE","This process","unixsock.pid == ${unixsock.src.pid}","Messages of the selected packet's sender"
"TRUE","This socket","unixsock.stream == ${unixsock.stream}","The selected packet's conversation"
"""

# Wireshark 4.4 and later change to the profile when a file has such packets; others don't read this file.
_SETTINGS = """\
auto_switch_filter: unixsock
"""

FILES = {
    "preferences": _PREFERENCES,
    "colorfilters": _COLOURS,
    "dfilter_buttons": _BUTTONS,
    "profile_settings": _SETTINGS,
    RECENT: _RECENT,
}
