"""Wiresharks to test with: this machine's, and with UNIXSOCK_WIRESHARK=all those of newer Debians.

The others live in chroots under .cache/wireshark/, made once by mmdebstrap (which wants root).
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from vm import wiresharks

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache/wireshark"

#: What tshark says on stderr that is not about us: 4.6 tells of SSH's key exchanges.
_OTHERS = re.compile(r"^Running as user|\[packet-\w+ WARNING\]")


@dataclass
class Tshark:
    """A tshark with our dissector installed.  ``root`` is its chroot, or None for this machine."""

    root: Path | None
    home: Path

    def command(self, capture: Path, *args: str) -> list[str]:
        """The command line that reads ``capture``, which is copied where this tshark can read it."""
        if self.root is None:
            return ["tshark", "-r", str(capture), *args]
        shutil.copyfile(capture, self.root / "tmp" / capture.name)
        return ["chroot", str(self.root), "tshark", "-r", f"/tmp/{capture.name}", *args]

    def usage(self, capture: Path, *args: str, timeout: float = 120) -> tuple[float, int]:
        """Processor time in seconds and peak memory in KiB of reading ``capture``."""
        measure = (
            "import resource, subprocess, sys; subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL,"
            " stderr=subprocess.DEVNULL, check=True); used = resource.getrusage(resource.RUSAGE_CHILDREN);"
            " print(used.ru_utime + used.ru_stime, used.ru_maxrss)"
        )
        env = {"PATH": os.environ["PATH"], "HOME": str(self.home), "LC_ALL": "C.UTF-8"}
        with subprocess.Popen(
            ["/usr/bin/python3", "-c", measure, *self.command(capture, "-n", *args)],
            env=env, stdout=subprocess.PIPE, text=True, start_new_session=True,
        ) as child:  # fmt: skip
            try:
                seconds, memory = child.communicate(timeout=timeout)[0].split()
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)  # a dissector that loops heeds no other signal
                pytest.fail(f"{capture.name} with {args}: not ended after {timeout} s")
        return float(seconds), int(memory)

    def run(
        self, capture: Path, *args: str, plugin: bool = True, bugs: bool = False, timeout: float = 120
    ) -> str:
        """What tshark prints on reading ``capture``; fails on errors and on any complaint.

        ``bugs``: Wireshark's own dissectors may complain of theirs.
        """
        home = str(self.home) if plugin or self.root else "/nonexistent"
        env = {"PATH": os.environ["PATH"], "HOME": home, "LC_ALL": "C.UTF-8"}
        done = subprocess.run(
            self.command(capture, *args), env=env, capture_output=True, text=True, errors="replace",
            timeout=timeout, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "Lua" not in done.stderr, done.stderr
        said = [line for line in done.stderr.splitlines() if not _OTHERS.search(line)]
        assert all(bugs and re.search("Dissector bug|GLib CRITICAL", line) for line in said), done.stderr
        assert "Lua Error" not in done.stdout
        return done.stdout

    def fields(
        self, capture: Path, *names: str, options: tuple[str, ...] = (), bugs: bool = False
    ) -> list[list[str]]:
        """One row of values for each packet; several values of a field are joined by ``|``."""
        wanted = [arg for name in names for arg in ("-e", name)]
        text = self.run(capture, "-T", "fields", "-E", "aggregator=|", *wanted, *options, bugs=bugs)
        return [line.split("\t") for line in text.splitlines()]


def _chroot(version: str) -> Path:
    root = CACHE / version
    if not (root / "usr/bin/tshark").exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["mmdebstrap", "--variant=minbase", "--include=tshark",
             '--aptopt=Acquire::Check-Valid-Until "false"', wiresharks.SUITES[version], str(root)],
            check=True, capture_output=True,
        )  # fmt: skip
    plugins = root / wiresharks.PLUGINS  # root's personal plugins are not loaded from 4.4 on
    shutil.rmtree(plugins / "unixsock", ignore_errors=True)
    shutil.copytree(ROOT / "dissector", plugins, dirs_exist_ok=True)
    return root


@pytest.fixture(scope="session", params=wiresharks.wanted("UNIXSOCK_WIRESHARK"))
def tshark(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tshark]:
    """Each Wireshark in turn; locally the dissector is a symbolic link, as NAMES.md promises."""
    home = tmp_path_factory.mktemp("home")
    if request.param != "local":
        yield Tshark(_chroot(request.param), Path("/root"))
        return
    plugins = home / ".local/lib/wireshark/plugins"
    plugins.mkdir(parents=True)
    (plugins / "unixsock.lua").symlink_to(ROOT / "dissector/unixsock.lua")
    yield Tshark(None, home)
