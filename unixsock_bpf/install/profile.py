"""Wireshark's configuration profile "Unix sockets", as the files that make it up.

Read by Wireshark 4.0 to 4.6.  Source of the formats: what those versions write; of the colouring rules
for 5.0, which was not run, its color_filters.c.
"""

from __future__ import annotations

import json

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

_DARK = "12272e"

#: Name, display filter, background and foreground; the first that matches counts.  Dark text on light rows,
#: but for what should stand out; with both colours given, themes do not matter.
_COLOURS = (
    ("Lost messages", "unixsock.event == 6", "a40000", "fffc9c"),
    ("Failed sends", "unixsock.event in {5, 7, 8}", "faaaaa", _DARK),
    ("Malformed", "_ws.malformed", _DARK, "ffb0b0"),
    ("Passed descriptors", "unixsock.fds.count > 0", "ffd99c", _DARK),
    ("Connections", "unixsock.event in {1, 2, 3, 4}", "eee6c8", _DARK),
    ("Datagrams", "unixsock.type == 2", "daeeff", _DARK),
    ("Sequenced packets", "unixsock.type == 5", "eadcff", _DARK),
    ("Streams", "unixsock.type == 1", "e4ffc7", _DARK),
)


def _legacy_colours() -> str:
    """Return the colouring rules for Wireshark up to 4.6: channels of 16 bits."""

    def channels(colour: str) -> str:
        return ",".join(str(byte * 257) for byte in bytes.fromhex(colour))

    lines = ["# Colouring rules for Unix sockets: the first that matches counts"]
    lines += [f"@{name}@{rule}@[{channels(back)}][{channels(front)}]" for name, rule, back, front in _COLOURS]
    return "\n".join(lines) + "\n"


def _colours() -> str:
    """Return the same for Wireshark 5.0."""
    rules = [
        {name: {"filter": rule, "foreground": f"#{front}", "background": f"#{back}", "enabled": True}}
        for name, rule, back, front in _COLOURS
    ]
    return json.dumps(rules, indent=2) + "\n"


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
    "colorfilters": _legacy_colours(),
    "coloring_rules.jsonc": _colours(),
    "dfilter_buttons": _BUTTONS,
    "profile_settings": _SETTINGS,
    RECENT: _RECENT,
}
