"""The session by mouse with a real probe under it, and what a kill of Wireshark leaves."""

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
from gui.session import Session, Steps
from gui.traffic import Shop
from gui.wireshark import Wireshark, add_profile, chosen_profile, make_home
from leftovers import ended, family, gone, hooks, only, pinned, readable
from patience import soon
from vm import wiresharks
from vm.debian import CHECKOUT

pytestmark = pytest.mark.thorough

#: Seconds after which a Wireshark that was killed has left nothing; less than one in a guest alone.
AT_ONCE = 3


@pytest.fixture(scope="module")
def afternoon() -> Iterator[Session]:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder, contextlib.ExitStack() as stack:
        home = Path(folder)
        desktop = stack.enter_context(Desktop())
        shop = stack.enter_context(Shop())
        release = re.search(r"VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text())
        newer = Path("/") if release and release[1] != "bookworm" else None
        desktop.prefix = f"guest-{release[1]}-" if release else "guest-"
        # From 4.4 on Wireshark ignores personal Lua plugins when it is run as root.
        subprocess.run(["mount", "--bind", CHECKOUT / "dissector", f"/{wiresharks.PLUGINS}"], check=True)
        make_home(home)
        add_profile(home)
        # Each program of Wireshark's own for other sources takes seconds to say so under emulation.
        others = {"WIRESHARK_EXTCAP_DIR": str(home)}
        wireshark = stack.enter_context(Wireshark(desktop, home, *chosen_profile(newer), **others))
        yield Session(wireshark, shop, home, ["tshark"], "fentry")


class TestSession(Steps):
    """The steps, and a last one."""

    def test_kill_9_of_wireshark_in_a_burst_leaves_nothing(self, session: Session) -> None:
        """Its dumpcap and the extcap end by themselves; the file has what came until then, without a gap."""
        wireshark, shop = session.wireshark, session.shop
        wireshark.buttons.find("check box", "^Start$").click()  # again, with the same filter
        try:
            wireshark.window("^Capturing from Unix sockets")
        finally:
            session.desktop.picture("again")
        session.until_packets_appear()
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
