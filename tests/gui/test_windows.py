"""Wireshark's own windows in the profile: flow graph, conversations, Follow for datagrams; and our list."""

from __future__ import annotations

import re
from pathlib import Path

from gui.desktop import Desktop
from gui.widgets import wait
from gui.wireshark import Wireshark, make_home
from unixsock_bpf.formats import pcapng
from unixsock_bpf.install import profile
from unixsock_bpf.record import Flag, Record, Role, encode

#: Type of socket, client, server, path, and what is said.
_CONVERSATIONS = (
    (1, b"curl", b"shop", b"/run/shop/web", (b"stream one", b"stream two")),
    (2, b"sensor", b"logger", b"/run/user/1000/a/long/path/log", (b"first reading", b"second reading")),
    (5, b"client", b"broker", b"/run/broker", (b"packet",)),
)


def _capture(file: Path) -> Path:
    blocks = [pcapng.section_header("", "", ""), pcapng.interface("unixsock", "", 0)]
    for number, (kind, client, server, path, said) in enumerate(_CONVERSATIONS, 1):
        sock, at = 256 * number, 0
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


def test_windows_of_a_capture(desktop: Desktop, home: Path, root: Path | None) -> None:
    folder = make_home(home) / "profiles" / profile.NAME
    folder.mkdir(parents=True)
    for name, text in profile.FILES.items():
        (folder / name).write_text(text)
    # From 4.4 on a capture of Unix sockets changes to the profile.
    chosen = () if root else ("-C", profile.NAME)
    capture = str(_capture(home / "a.pcapng"))
    with Wireshark(desktop, home, *chosen, "-r", capture, root=root) as wireshark:
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
        told = wireshark.window("Flow").find("label", "node").name
        desktop.picture("flow-graph")
        assert re.findall(r"\d+", told) == ["6", "5"]
        desktop.keys("Escape")
        wireshark.wait_without("Flow")

        wireshark.menu("Statistics", "Conversations")
        window = wireshark.window("Conversations")
        wait("two tabs", lambda: [tab.name for tab in window.all("page tab")] == ["TCP · 1", "UDP · 2"])
        desktop.picture("conversations")
        desktop.keys("Escape")
        wireshark.wait_without("Conversations")

        wireshark.rows()[2][7].click()
        desktop.keys("ctrl+alt+shift+u")
        said = wireshark.window("Follow UDP Stream").find("text").text
        desktop.picture("follow-datagrams")
        assert "first reading" in said
        assert "second reading" in said
        desktop.keys("Escape")
        wireshark.wait_without("Follow UDP Stream")
        wireshark.display("")

        wireshark.menu("Statistics", "Unix Socket Conversations")
        window = wireshark.window("Unix Socket Conversations")
        table = window.find("text")
        wait("three conversations", lambda: table.text.count("/run/") == 3)
        window.find("push button", "By path").click()
        wait("another order", lambda: table.text.index("/run/broker") < table.text.index("/run/shop"))
        desktop.picture("own-conversations")
        assert max(map(len, table.text.splitlines())) <= 72
