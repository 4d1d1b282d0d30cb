# ruff: noqa: E501 (the lines of another language)
"""Makes dissector/unixsock/protocols/lib/wayland_names.lua from the protocols' own XML files.

python3 wayland_names.py FILE.xml... > dissector/unixsock/protocols/lib/wayland_names.lua
with wayland.xml of Debian's libwayland-bin, and xdg-shell.xml and others of wayland-protocols.
"""

import sys
import textwrap
from xml.etree import ElementTree

#: How an argument of each type is written in the table.
TYPES = {
    "int": "i",
    "uint": "u",
    "fixed": "f",
    "string": "s",
    "object": "o",
    "new_id": "n",
    "array": "a",
    "fd": "h",
}

HEAD = """\
-- Messages of Wayland's interfaces by opcode, requests and events: names, and arguments as name:type.
-- Types: i int, u uint, f fixed, s string, o object, n new object (=its interface; without: s and u come before),
-- a array, h descriptor (not in the bytes).  Made by tests/dissector/wayland_names.py from
{files}
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

return {{"""


def message(node: ElementTree.Element) -> str:
    words = [node.get("name", "")]
    for arg in node.findall("arg"):
        kind = TYPES[arg.get("type", "")]
        made = f"={arg.get('interface')}" if kind == "n" and arg.get("interface") else ""
        words.append(f"{arg.get('name')}:{kind}{made}")
    return " ".join(words)


def main(files: list[str]) -> None:
    names = ", ".join(sorted(file.rpartition("/")[2] for file in files))
    print(HEAD.format(files=textwrap.fill(names, 100, initial_indent="-- ", subsequent_indent="-- ")))
    for file in files:
        for interface in ElementTree.parse(file).getroot().findall("interface"):
            print(f"    {interface.get('name')} = {{")
            for kind in ("request", "event"):
                messages = [message(node) for node in interface.findall(kind)]
                if messages:
                    print(f"        {kind}s = {{")
                    print("\n".join(f'            "{one}",' for one in messages))
                    print("        },")
            print("    },")
    print("}")


if __name__ == "__main__":
    main(sys.argv[1:])
