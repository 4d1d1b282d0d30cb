"""One session in Wireshark's windows, by mouse and keyboard, with a real probe under it.

The steps are in the order in which a user takes them, and each builds on those before.
Pictures of them are in .cache/gui afterwards.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from gui.desktop import Desktop
from gui.traffic import API, FOLDER, NUMBERS, Shop
from leftovers import ended, family, gone, hooks, only, pinned, readable
from patience import soon
from vm import wiresharks
from vm.debian import CHECKOUT

from unixsock_bpf import record
from unixsock_bpf.formats import pcapng
from unixsock_bpf.record import Event, Record

pytestmark = pytest.mark.thorough

#: Seconds after which a Wireshark that was killed has left nothing; less than one in a guest alone.
AT_ONCE = 3


class Session:
    """A user's afternoon."""

    def __init__(self, folder: Path) -> None:
        from gui.wireshark import Wireshark, make_home

        self.stack = contextlib.ExitStack()
        self.desktop = self.stack.enter_context(Desktop())
        self.shop = self.stack.enter_context(Shop())
        self.file = folder / "saved.pcapng"
        release = re.search(r"VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text())
        if release and release[1] != "bookworm":
            self.desktop.prefix = f"{release[1]}-"
        # From 4.4 on Wireshark ignores personal Lua plugins when it is run as root.
        subprocess.run(["mount", "--bind", CHECKOUT / "dissector", f"/{wiresharks.PLUGINS}"], check=True)
        make_home(folder)
        self.wireshark = self.stack.enter_context(Wireshark(self.desktop, folder))
        #: What must be in the file in the end, of the numbers and of the pages.
        self.numbers: list[bytes] = []
        self.pages: list[str] = []
        self.all_packets = 0

    def settled(self) -> int:
        """The number of packets, once it grows no more."""
        last, since = 0, time.monotonic()
        while time.monotonic() - since < 3:
            now = self.wireshark.packets()[0]
            if now != last:
                last, since = now, time.monotonic()
            time.sleep(0.3)
        return last


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        session = Session(Path(folder))
        with session.stack:
            yield session


def test_options_are_untouched_and_then_used(session: Session) -> None:
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


def test_the_interface_is_picked_by_mouse_and_packets_appear(session: Session) -> None:
    wireshark, desktop, shop = session.wireshark, session.desktop, session.shop
    row = wireshark.interface()
    row.click()
    wireshark.main.find("text", "Capture filter entry").click()
    desktop.type(f"path {FOLDER}/*")
    row.click(times=2)
    wireshark.window("^Capturing from Unix sockets")
    deadline = time.monotonic() + 120
    while not wireshark.packets()[0]:
        assert time.monotonic() < deadline, "no packet appeared"
        shop.say(b"Is anybody listening?\n")
        time.sleep(0.5)
    shop.ask("orders", "orders/17")
    shop.list_bus_names()
    shop.count("first", 5)
    session.numbers += shop.sent
    session.pages += ["/orders", "/orders/17"]
    session.settled()
    wireshark.display("http.request or dbus")  # of the list, only what is in view can be asked for
    rows = [[cell.name for cell in cells] for cells in wireshark.rows()]
    wireshark.display("")
    assert any(cells[4] == "HTTP" and cells[6].startswith("GET /orders ") for cells in rows), rows
    assert any(cells[4] == "D-Bus" and "ListNames" in cells[6] for cells in rows), rows


def test_a_display_filter_is_typed_while_capturing(session: Session) -> None:
    wireshark = session.wireshark
    wireshark.display('unixsock.path contains "api"')
    everything, shown = wireshark.packets()
    assert 0 < shown < everything
    session.shop.count("second", 5)
    session.numbers += session.shop.sent[-5:]
    session.settled()
    assert wireshark.packets()[0] >= everything + 5
    assert wireshark.packets()[1] == shown
    rows = wireshark.rows()
    assert len(rows) == shown
    get = next(cells for cells in rows if cells[6].name.startswith("GET /orders/17"))
    assert get[2].name.startswith("curl[")
    assert get[3].name.startswith("python")
    get[6].click()
    session.desktop.keys("Tab", "End", "Right")  # into the details: opens HTTP, the last
    session.desktop.picture("wireshark-live")


def test_follow_stream_opens_on_an_http_conversation(session: Session) -> None:
    wireshark, desktop = session.wireshark, session.desktop
    desktop.keys("ctrl+alt+shift+t")
    follow = wireshark.window("Follow TCP Stream")
    text = follow.find("text").text
    desktop.picture("wireshark-follow")
    desktop.keys("Escape")
    asked = [line for line in text.splitlines() if line.startswith("GET ")]
    assert asked == ["GET /orders HTTP/1.1", "GET /orders/17 HTTP/1.1"]
    assert text.count("HTTP/1.1 200 OK") == 2
    assert '"you asked for": "/orders/17"' in text
    wireshark.display("")


def test_flow_graph_draws_the_processes(session: Session) -> None:
    wireshark, desktop = session.wireshark, session.desktop
    wireshark.menu("Statistics", "Flow Graph")
    flow = wireshark.window("Flow")
    told = flow.find("label", "node").name
    desktop.picture("flow")
    desktop.keys("Escape")
    nodes, items = map(int, re.findall(r"(\d+) (?:node|item)", told))
    assert nodes >= 4  # the pages' and the bus's clients and servers, and this process
    assert items >= wireshark.packets()[0] - 5


def test_the_toolbar_changes_the_filter(session: Session) -> None:
    wireshark, shop = session.wireshark, session.shop
    wireshark.open_log()
    wireshark.wait_for_log(f"Attached with fentry. Capture filter: path {FOLDER}/*")
    wireshark.toolbar.find("text").enter(f"path {NUMBERS}", "Return")
    wireshark.wait_for_log(f"Capture filter: (path {FOLDER}/*) and (path {NUMBERS})")
    shop.ask("not/captured")
    shop.count("third", 5)
    session.numbers += shop.sent[-5:]


def test_pause(session: Session) -> None:
    wireshark, shop = session.wireshark, session.shop
    pause = wireshark.toolbar.find("check box", "^Pause$")
    pause.click()
    wireshark.wait_for_log("Paused: nothing is captured.")
    shop.count("while paused", 5)
    pause.click()
    wireshark.wait_for_log("Capturing again.")
    shop.count("fourth", 5)
    session.numbers += shop.sent[-5:]


def test_the_sockets_button_lists_sockets(session: Session) -> None:
    wireshark = session.wireshark
    wireshark.toolbar.find("push button", "^Sockets$").click()
    wireshark.wait_for_log(f"{API}  (stream)  python")
    session.desktop.picture("log")


def test_a_bad_filter_is_refused_and_the_old_one_goes_on(session: Session) -> None:
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


def test_stop_and_save(session: Session) -> None:
    wireshark, desktop = session.wireshark, session.desktop
    wireshark.buttons.find("push button", "^Stop$").click()
    wireshark.window(r"^\*Unix sockets")
    session.all_packets = session.settled()  # the last ones may be read after the title has changed
    wireshark.rows()[0][6].click()  # keys go to the window that was used last, the log maybe
    desktop.keys("ctrl+s")
    dialog = wireshark.window("Save Capture File As")
    desktop.picture("save")
    dialog.find("text", "").enter(str(session.file), "Return")
    wireshark.window(session.file.name)
    desktop.picture("saved")


def test_the_saved_file_has_every_packet(session: Session) -> None:
    packets = list(pcapng.packets(session.file.read_bytes()))
    assert len(packets) == session.all_packets
    records = [record.decode(packet.data) for packet in packets]
    assert numbers(records) == session.numbers
    fields = ("-T", "fields", "-e", "http.request.method", "-e", "http.request.uri")
    command = ["tshark", "-r", str(session.file), *fields]
    env = {"HOME": str(session.file.parent), "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
    told = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(told) == session.all_packets
    rows = [line.split("\t") for line in told]
    assert [uri for method, uri in rows if method] == session.pages  # from 4.4 on answers have the URI, too


def test_kill_9_of_wireshark_in_a_burst_leaves_nothing(session: Session) -> None:
    """Its dumpcap and the extcap end by themselves; the file has what came until then, without a gap."""
    wireshark, shop = session.wireshark, session.shop
    wireshark.buttons.find("check box", "^Start$").click()  # again, with the same filter
    try:
        wireshark.window("^Capturing from Unix sockets")
    finally:
        session.desktop.picture("again")
    deadline = time.monotonic() + 120
    while not wireshark.packets()[0]:
        assert time.monotonic() < deadline, "no packet appeared"
        shop.say(b"Is anybody listening?\n")
        time.sleep(0.5)
    sent: list[bytes] = []
    ending = threading.Event()

    def burst() -> None:
        while not ending.is_set():
            sent.append(b"burst number %d" % len(sent))
            shop.say(sent[-1])

    talker = threading.Thread(target=burst)
    talker.start()
    try:
        time.sleep(5)
        processes = family(wireshark.process.pid)
        assert only(processes, "dumpcap") != only(processes, "extcap/unixsock")
        before = len(sent)
        wireshark.process.kill()
        wireshark.process.wait()
        processes_end = ended(list(processes))
        probes_end = gone()
        print(f"kill -9 of Wireshark: all its processes are gone after {processes_end:.2f} s, ", end="")
        print(f"probes {probes_end:.2f} s later")
        assert processes_end + probes_end < soon(AT_ONCE)
    finally:
        ending.set()
        talker.join()
    assert (hooks(), pinned()) == (0, [])
    file = max(session.file.parent.glob("wireshark_*.pcapng"), key=lambda path: path.stat().st_mtime)
    found = [r.payload for r in readable(file) if r.payload.startswith(b"burst")]
    print(f"{len(found)} messages are in the file, {before} were said before")
    assert len(found) > before / 2
    assert found == sent[: len(found)]


def numbers(records: list[Record]) -> list[bytes]:
    """What was captured of the numbers."""
    return [r.payload for r in records if r.event == Event.DATA and b" number " in r.payload]
