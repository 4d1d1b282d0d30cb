"""Follow Stream from the packet that is selected, in a capture that was saved."""

from __future__ import annotations

from pathlib import Path

import pytest

from gui.desktop import Desktop
from gui.widgets import wait
from gui.wireshark import Wireshark, make_home
from unixsock_bpf.formats import pcapng
from unixsock_bpf.record import Flag, Record, Role, encode

_ASKED = b"GET /orders/17 HTTP/1.1\r\nHost: shop\r\n\r\n"
_ANSWERED = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nthree"


def _capture(file: Path) -> Path:
    """Two conversations with one server; the second is asked about."""
    client, server = {"src_pid": 7, "src_comm": b"curl"}, {"dst_pid": 8, "dst_comm": b"shop"}
    common = {"type": 1, "flags": Flag.FROM_START}
    blocks = [pcapng.section_header("", "", ""), pcapng.interface("unixsock", "", 0)]
    for sock, asked in ((100, _ASKED.replace(b"17", b"1")), (200, _ASKED)):
        ask = Record(**common, **client, **server, role=Role.DST_IS_SERVER, src_sock=sock, dst_sock=sock + 1,
                     dst_name=b"/run/shop.sock", len=len(asked), payload=asked)  # fmt: skip
        answer = Record(**common, src_pid=8, src_comm=b"shop", dst_pid=7, dst_comm=b"curl",
                        role=Role.SRC_IS_SERVER, src_sock=sock + 1, dst_sock=sock, src_name=b"/run/shop.sock",
                        ack=len(asked), len=len(_ANSWERED), payload=_ANSWERED)  # fmt: skip
        blocks += [pcapng.packet(sock, encode(ask)), pcapng.packet(sock + 1, encode(answer))]
    file.write_bytes(b"".join(blocks))
    return file


@pytest.mark.thorough  # the session follows a stream, too
def test_follow_stream_shows_both_sides_of_the_selected_packets_conversation(
    desktop: Desktop, home: Path, root: Path | None
) -> None:
    make_home(home)
    with Wireshark(desktop, home, "-r", str(_capture(home / "a.pcapng")), root=root) as wireshark:
        wireshark.display('http.request.method && http.request.uri == "/orders/17"')
        wait("one displayed packet", lambda: wireshark.packets()[1] == 1)
        (row,) = wireshark.rows()
        row[6].click()
        desktop.keys("ctrl+alt+shift+t")
        follow = wireshark.window("Follow TCP Stream").find("text")
        wait("the answer", lambda: "three" in follow.text)
        desktop.picture("follow")
        lines = [line for line in follow.text.splitlines() if line]
        assert lines[0] == "GET /orders/17 HTTP/1.1"
        assert lines[2:] == ["HTTP/1.1 200 OK", "Content-Length: 5", "three"]
