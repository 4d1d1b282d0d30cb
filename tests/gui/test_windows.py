"""Wireshark's own windows in the profile: flow graph, conversations, Follow for datagrams; and our list."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gui.desktop import Desktop
from gui.session import DESTINATION, SOURCE, addresses
from gui.widgets import wait
from gui.wireshark import Wireshark, add_profile, chosen_profile, make_home
from unixsock_bpf.formats import pcapng
from unixsock_bpf.install import profile
from unixsock_bpf.record import Flag, Record, Role, encode

#: Type of socket, client, server, path, and the payloads.
_CONVERSATIONS = (
    (1, b"curl", b"shop", b"/run/shop/web", (b"stream one", b"stream two")),
    (2, b"sensor", b"logger", b"/run/user/1000/a/long/path/log", (b"first reading", b"second reading")),
    (5, b"client", b"broker", b"/run/broker", (b"packet",)),
)


def _capture(file: Path) -> Path:
    blocks = [pcapng.section_header("", "", ""), pcapng.interface("unixsock", "", 0)]
    for number, (kind, client, server, path, said) in enumerate(_CONVERSATIONS, 1):
        sock, at = 256 * number, 0
        names = [
            (sock, f"{client.decode()}[{10 * number}]"),
            (sock + 1, f"{server.decode()} {path.decode()}"),
        ]
        blocks.append(pcapng.names(names))
        for count, payload in enumerate(said):
            record = Record(
                type=kind, flags=Flag.FROM_START, role=Role.DST_IS_SERVER, src_sock=sock, dst_sock=sock + 1,
                src_pid=10 * number, dst_pid=10 * number + 1, src_comm=client, dst_comm=server, dst_name=path,
                seq=at, message=count, len=len(payload), payload=payload,
            )  # fmt: skip
            at += len(payload)
            blocks.append(pcapng.packet(1000 * number + count, encode(record)))
    file.write_bytes(b"".join(blocks))
    return file


def _has_tabs_and_names(wireshark: Wireshark, title: str, tabs: list[str]) -> None:
    wireshark.menu("Statistics", title)
    window = wireshark.window(title)
    wait(f"{tabs}", lambda: [tab.name for tab in window.all("page tab")] == tabs)
    window.find("check box", "^Name resolution$").click()
    wait("names of the stream", lambda: addresses(window) >= {"curl[10]", "shop /run/shop/web"})
    window.find("page tab", "^UDP").click()
    wait("names of the others", lambda: addresses(window) >= {"sensor[20]", "broker /run/broker"})
    wireshark.desktop.picture(title.lower())
    wireshark.desktop.keys("Escape")
    wireshark.wait_without(title)


def _follows(wireshark: Wireshark, row: int, picture: str, *said: str) -> None:
    wireshark.rows()[row][SOURCE].click()
    wireshark.desktop.keys("ctrl+alt+shift+u")
    follow = wireshark.window("Follow UDP Stream").find("text")
    wait(f"{said}", lambda: all(text in follow.text for text in said))
    wireshark.desktop.picture(f"follow-{picture}")
    wireshark.desktop.keys("Escape")
    wireshark.wait_without("Follow UDP Stream")
    wireshark.display("")


def test_windows_of_a_capture(desktop: Desktop, home: Path, root: Path | None) -> None:
    make_home(home)
    add_profile(home)
    capture = str(_capture(home / "a.pcapng"))
    with Wireshark(desktop, home, *chosen_profile(root), "-r", capture, root=root) as wireshark:
        wait("the profile", lambda: wireshark.status.has("label", f"^Profile: {profile.NAME}$"))
        datagram = wait("five packets", lambda: len(rows := wireshark.rows()) == 5 and rows[2])
        assert [cell.name for cell in datagram[2:5]] == [
            "sensor[20]",
            "logger[21]",
            "/run/user/1000/a/long/path/log",
        ]
        assert datagram[4].box[2] - datagram[4].box[0] == 260
        assert "/run" not in datagram[7].name  # Info
        desktop.picture("profile")

        wireshark.menu("Statistics", "Flow Graph")
        told = wireshark.window("Flow").find("label", "node")
        wait("six nodes and five arrows", lambda: re.findall(r"\d+", told.name) == ["6", "5"])
        desktop.picture("flow-graph")
        desktop.keys("Escape")
        wireshark.wait_without("Flow")

        _has_tabs_and_names(wireshark, "Conversations", ["TCP · 1", "UDP · 2"])
        _has_tabs_and_names(wireshark, "Endpoints", ["TCP · 2", "UDP · 4"])

        wireshark.menu("Statistics", "I/O Graph")
        window = wireshark.window("I/O Graph")
        window.find("push button", "^Close$")
        desktop.picture("io-graph")
        desktop.keys("Escape")
        wireshark.wait_without("I/O Graph")

        _follows(wireshark, 2, "readings", "first reading", "second reading")

        wireshark.menu("Statistics", "Unix Socket Conversations")
        window = wireshark.window("Unix Socket Conversations")
        table = window.find("text")
        wait("three conversations", lambda: table.text.count("/run/") == 3)
        window.find("push button", "By path").click()
        wait("another order", lambda: table.text.index("/run/broker") < table.text.index("/run/shop"))
        desktop.picture("own-conversations")
        assert max(map(len, table.text.splitlines())) <= 72


@pytest.mark.thorough
def test_without_the_profile_processes_are_readable(desktop: Desktop, home: Path, root: Path | None) -> None:
    """Wireshark's own preferences resolve no network names: the columns and our window have them even so."""
    make_home(home)
    with Wireshark(desktop, home, "-r", str(_capture(home / "a.pcapng")), root=root) as wireshark:
        rows = wait("five packets", lambda: len(rows := wireshark.rows()) == 5 and rows)
        assert [rows[0][SOURCE].name, rows[4][DESTINATION].name] == ["curl[10]", "broker[31]"]
        assert "/run/shop/web" in rows[0][6].name  # Info, as the path has no column here
        desktop.picture("default-profile")
        wireshark.menu("Statistics", "Flow Graph")
        told = wireshark.window("Flow").find("label", "node")
        wait("six nodes and five arrows", lambda: re.findall(r"\d+", told.name) == ["6", "5"])
        desktop.picture("default-flow")
        desktop.keys("Escape")
        wireshark.wait_without("Flow")
        wireshark.menu("Statistics", "Unix Socket Conversations")
        table = wireshark.window("Unix Socket Conversations").find("text")
        wait("names and paths", lambda: "sensor[20]" in table.text and "/run/broker" in table.text)
        desktop.keys("Escape")
        wireshark.wait_without("Unix Socket Conversations")
        _follows(wireshark, 4, "packet", "packet")
