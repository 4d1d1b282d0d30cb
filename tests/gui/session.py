"""One session in Wireshark's windows, by mouse and keyboard.

The steps are in the order in which a user takes them, and each builds on those before.  Pictures of them are
in .cache/gui afterwards.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gui.traffic import API, BUS, FOLDER, NUMBERS, Shop
from gui.widgets import Widget, wait
from gui.wireshark import Wireshark
from unixsock_bpf import record
from unixsock_bpf.formats import pcapng
from unixsock_bpf.record import Event, Record

#: Columns of the profile.
SOURCE, DESTINATION, PROTOCOL, INFO = 2, 3, 5, 7


class Session:
    """A user's afternoon with a Wireshark that runs.

    ``home``: of its user; ``tshark``: the command of the same version; ``attached``: what the log says of
    how the capture is attached.
    """

    def __init__(
        self, wireshark: Wireshark, shop: Shop, home: Path, tshark: list[str], attached: str
    ) -> None:
        self.wireshark, self.desktop, self.shop = wireshark, wireshark.desktop, shop
        self.file = home / "saved.pcapng"
        self.tshark, self.attached = tshark, attached
        #: What must be in the file in the end, of the numbers and of the pages.
        self.numbers: list[bytes] = []
        self.pages: list[str] = []
        self.all_packets = 0
        #: The step that failed.
        self.failed = ""

    def until_packets_appear(self) -> None:
        """Talk until Wireshark shows the first packet: the probe is attached later than the title changes."""

        def shown() -> bool:
            self.shop.say(b"Is anybody listening?\n")
            return self.wireshark.packets()[0] > 0

        wait("packet", shown)

    def settled(self) -> int:
        """The number of packets, once it grows no more."""
        last, since = 0, time.monotonic()
        while time.monotonic() - since < 3:
            now = self.wireshark.packets()[0]
            if now != last:
                last, since = now, time.monotonic()
            time.sleep(0.3)
        return last


class Steps:
    """The steps, for a class of tests with a module's fixture ``afternoon``.

    Those that are ``thorough`` can be left out: no other builds on them.
    """

    @pytest.fixture
    def session(self, afternoon: Session, request: pytest.FixtureRequest) -> Iterator[Session]:
        """The session, unless one of its steps has failed: the others would wait for what never comes."""
        assert not afternoon.failed, f"an earlier step failed: {afternoon.failed}"
        failures = request.session.testsfailed
        yield afternoon
        if request.session.testsfailed > failures:
            afternoon.failed = request.node.name

    @pytest.mark.thorough
    def test_options_are_untouched_and_then_used(self, session: Session) -> None:
        """Nothing needs to be filled in; then connects and closes are wanted, too."""
        wireshark = session.wireshark
        dialog = wireshark.open_options()
        buttons = [button for button in dialog.all("push button", "^(Start|Save)$")]
        assert buttons
        assert all(button.enabled for button in buttons)
        session.desktop.picture("options-untouched")
        dialog.find("push button", "^Save$").click()
        wireshark.wait_without("Interface Options")
        dialog = wireshark.open_options()
        dialog.find("page tab", "^Capture$").click()
        dialog.find("check box", "Connects, closes").click()
        session.desktop.picture("options")
        dialog.find("push button", "^Save$").click()
        wireshark.wait_without("Interface Options")

    def test_the_interface_is_picked_by_mouse_and_packets_appear(self, session: Session) -> None:
        wireshark, desktop, shop = session.wireshark, session.desktop, session.shop
        wireshark.interface().click()
        wireshark.main.find("text", "Capture filter entry").click()
        desktop.type(f"path {FOLDER}/*")
        wireshark.start_capture()
        session.until_packets_appear()
        shop.ask("orders", "orders/17")
        shop.list_bus_names()
        shop.count("first", 5)
        session.numbers += shop.sent
        session.pages += ["/orders", "/orders/17"]
        session.settled()
        wireshark.display("http.request or dbus")  # of the list, only what is in view can be asked for

        def decoded() -> bool:
            rows = [[cell.name for cell in cells] for cells in wireshark.rows()]
            return any(
                row[PROTOCOL] == "HTTP" and row[INFO].startswith("GET /orders ") for row in rows
            ) and any(row[PROTOCOL] == "D-Bus" and "ListNames" in row[INFO] for row in rows)

        wait("request and method call", decoded)
        wireshark.display("")

    def test_a_display_filter_is_typed_while_capturing(self, session: Session) -> None:
        wireshark = session.wireshark
        wireshark.display('unixsock.path contains "api"')
        wait(
            "some packets that are not displayed", lambda: 0 < wireshark.packets()[1] < wireshark.packets()[0]
        )
        everything, shown = wireshark.packets()
        session.shop.count("second", 5)
        session.numbers += session.shop.sent[-5:]
        session.settled()
        assert wireshark.packets()[0] >= everything + 5
        assert wireshark.packets()[1] == shown
        rows = wireshark.rows()
        assert len(rows) == shown
        get = next(cells for cells in rows if cells[INFO].name.startswith("GET /orders/17"))
        assert get[SOURCE].name.startswith("curl[")
        assert get[DESTINATION].name.startswith("python")
        get[INFO].click()
        session.desktop.keys("Tab", "End", "Right")  # into the details: opens HTTP, the last
        wait(
            "the request's lines", lambda: any("User-Agent: curl" in name for _, name in wireshark.details())
        )
        session.desktop.picture("wireshark-live")

    def test_follow_stream_opens_on_an_http_conversation(self, session: Session) -> None:
        wireshark, desktop = session.wireshark, session.desktop
        desktop.keys("ctrl+alt+shift+t")
        follow = wireshark.window("Follow TCP Stream")
        shown = follow.find("text")
        wait("both answers", lambda: shown.text.count("HTTP/1.1 200 OK") == 2)
        text = shown.text
        desktop.picture("wireshark-follow")
        desktop.keys("Escape")
        # The made-up TCP segment is within the socket's own layer, not among those that were captured.
        layers = wireshark.layers()
        assert any(layer.startswith("Unix Domain Socket") for layer in layers)
        assert not any(layer.startswith("Transmission Control") for layer in layers)
        asked = [line for line in text.splitlines() if line.startswith("GET ")]
        assert asked == ["GET /orders HTTP/1.1", "GET /orders/17 HTTP/1.1"]
        assert '"you asked for": "/orders/17"' in text
        wireshark.display("")

    @pytest.mark.thorough
    def test_flow_graph_draws_the_processes(self, session: Session) -> None:
        wireshark, desktop = session.wireshark, session.desktop
        wireshark.menu("Statistics", "Flow Graph")
        told = wireshark.window("Flow").find("label", "node")

        def drawn() -> bool:
            counts = [int(count) for count in re.findall(r"(\d+) (?:node|item)", told.name)]
            # The pages' and the bus's clients and servers, and this process.
            return len(counts) == 2 and counts[0] >= 4 and counts[1] >= wireshark.packets()[0] - 5

        wait("lines and arrows", drawn)
        desktop.picture("flow")
        desktop.keys("Escape")

    @pytest.mark.thorough
    def test_conversations_have_names(self, session: Session) -> None:
        wireshark, desktop = session.wireshark, session.desktop
        wireshark.menu("Statistics", "Conversations")
        window = wireshark.window("Conversations")
        window.find("check box", "^Name resolution$").click()

        def named() -> bool:
            texts = addresses(window)
            return all(any(text.startswith(start) for text in texts) for start in ("curl[", "python"))

        wait("curl and the web server", named)
        desktop.picture("conversations")
        desktop.keys("Escape")
        wireshark.wait_without("Conversations")
        wireshark.menu("Statistics", "Unix Socket Conversations")
        table = wireshark.window("Unix Socket Conversations").find("text")
        wait("our sockets", lambda: all(str(path) in table.text for path in (API, BUS, NUMBERS)))
        desktop.picture("own-conversations")
        desktop.keys("Escape")
        wireshark.wait_without("Unix Socket Conversations")

    def test_the_toolbar_changes_the_filter(self, session: Session) -> None:
        wireshark, shop = session.wireshark, session.shop
        wireshark.open_log()
        wireshark.wait_for_log(f"Attached with {session.attached}. Capture filter: path {FOLDER}/*")
        wireshark.toolbar.find("text").enter(f"path {NUMBERS}", "Return")
        wireshark.wait_for_log(f"Capture filter: (path {FOLDER}/*) and (path {NUMBERS})")
        shop.ask("not/captured")
        shop.count("third", 5)
        session.numbers += shop.sent[-5:]

    def test_pause(self, session: Session) -> None:
        wireshark, shop = session.wireshark, session.shop
        pause = wireshark.toolbar.find("check box", "^Pause$")
        pause.click()
        wireshark.wait_for_log("Paused: nothing is captured.")
        shop.count("while paused", 5)
        pause.click()
        wireshark.wait_for_log("Capturing again.")
        shop.count("fourth", 5)
        session.numbers += shop.sent[-5:]

    def test_the_sockets_button_lists_sockets(self, session: Session) -> None:
        wireshark = session.wireshark
        wireshark.toolbar.find("push button", "^Sockets$").click()
        wireshark.wait_for_log(f"{API}  (stream)  python")
        session.desktop.do("search", "--name", "unixsock Log", "windowraise")
        session.desktop.picture("log")

    def test_a_bad_filter_is_refused_and_the_old_one_goes_on(self, session: Session) -> None:
        wireshark, shop = session.wireshark, session.shop
        wireshark.toolbar.find("text").enter(f"path {API} xor fds", "Return")
        box = wireshark.message()
        told = " ".join(label.name for label in box.all("label"))
        session.desktop.picture("bad-filter")
        box.find("push button", "OK").click()
        assert told.startswith("The filter was not changed. At position 25: unexpected 'xor'")
        shop.ask("not/captured/either")
        shop.count("fifth", 5)
        session.numbers += shop.sent[-5:]

    def test_stop_and_save(self, session: Session) -> None:
        wireshark, desktop = session.wireshark, session.desktop
        wireshark.buttons.find("push button", "^Stop$").click()
        wireshark.window(r"^\*Unix sockets")
        session.all_packets = session.settled()  # the last ones may be read after the title has changed
        wireshark.rows()[0][INFO].click()  # keys go to the window that was used last, the log maybe
        desktop.keys("ctrl+s")
        dialog = wireshark.window("Save Capture File As")
        desktop.picture("save")
        dialog.find("text", "").enter(str(session.file), "Return")
        wireshark.window(session.file.name)
        desktop.picture("saved")

    def test_the_saved_file_has_every_packet(self, session: Session) -> None:
        packets = list(pcapng.packets(session.file.read_bytes()))
        assert len(packets) == session.all_packets
        records = [record.decode(packet.data) for packet in packets]
        assert numbers(records) == session.numbers
        fields = ("-T", "fields", "-e", "http.request.method", "-e", "http.request.uri")
        command = [*session.tshark, "-r", str(session.file), *fields]
        env = {"HOME": str(session.file.parent), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
        told = subprocess.run(
            command, env=env, capture_output=True, text=True, check=True
        ).stdout.splitlines()
        assert len(told) == session.all_packets
        rows = [line.split("\t") for line in told]
        assert [
            uri for method, uri in rows if method
        ] == session.pages  # from 4.4 on answers have the URI, too

    @pytest.mark.thorough
    def test_it_is_closed_and_opened_again(self, session: Session) -> None:
        wireshark = session.wireshark
        wireshark.menu("File", "Close")
        wireshark.window("The Wireshark Network Analyzer")
        wireshark.menu("File", "Open")
        wireshark.window("Open Capture File").find("text", "").enter(str(session.file), "Return")
        wireshark.window(session.file.name)
        wait("all packets", lambda: wireshark.packets()[0] == session.all_packets)


def numbers(records: list[Record]) -> list[bytes]:
    """What was captured of the numbers."""
    return [r.payload for r in records if r.event == Event.DATA and b" number " in r.payload]


def addresses(window: Widget) -> set[str]:
    """The texts in the table of a window with conversations or endpoints, of those that can be seen."""
    tables = (tree for tree in window.all("tree") if tree.has("table column header", "^Address"))
    return {cell.name for table in tables for row in table.table() for cell in row}
