"""Twenty hosts in one capture, three of them dead, by a real sshd."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import far
import pytest
from far import FOLDER, Far, running, wait_until
from live import READY_TIMEOUT
from patience import soon
from system import run

from unixsock_bpf import record
from unixsock_bpf.formats import pcapng, reader
from unixsock_bpf.record import Record
from unixsock_bpf.version import __version__

pytestmark = pytest.mark.thorough

#: They play a capture back: an emulated machine cannot carry seventeen probes.
PLAYING = [f"played{number}" for number in range(17)]
#: Names that lead nowhere, and the words in which a user is told.
DEAD = {
    "refusing": "refusing refuses connections",
    "unreachable": "unreachable cannot be reached",
    "silent": "silent cannot be reached",
}
MESSAGES = [b"message %02d." % number for number in range(20)]
_CONFIG = """\
Host played*
    HostName 127.0.0.1
    Port {player}
Host refusing
    HostName 127.0.0.1
    Port 9
Host unreachable
    HostName 10.99.0.1
Host silent
    HostName 127.0.0.1
    Port {silent}
    ConnectTimeout 5
Host *
    IdentityFile {home}/id
    UserKnownHostsFile {home}/known_hosts
    ConnectTimeout 1200
"""
#: ``unixsock dump --control`` for those that play back.
_PLAYER = """\
#!/usr/bin/python3 -IS
import os, time
os.write(2, b'{{"hello": "{version}"}}\\n')
while not (length := int.from_bytes(os.read(0, 4), "big")):
    pass
while length:
    length -= len(os.read(0, length))
os.write(2, b'{{"clock": %d}}\\n' % time.time_ns())
os.write(2, b'{{"hooks": {{"proofs": [], "unattached": []}}}}\\n{{"attached": "fentry"}}\\n')
block = {block!r}
for number in range({count}):
    now = time.time_ns()
    head = block[:12] + (now >> 32).to_bytes(4, "little") + (now & 0xFFFFFFFF).to_bytes(4, "little")
    os.write(1, head + block[20:].replace(b"message @@", b"message %02d" % number))
    time.sleep(0.05)
while os.read(0, 4096):
    pass
os.write(2, b'{{"ended": {{"messages": {count}, "lost": 0}}}}\\n')
"""


@pytest.fixture(scope="module", autouse=True)
def _host() -> Iterator[None]:
    with far.prepared():
        yield


@contextmanager
def twenty_hosts() -> Iterator[None]:
    """Names of hosts that play back, and of three that are dead."""
    player = FOLDER / "player/unixsock"
    player.parent.mkdir()
    one = Record(src_sock=1 << 8, dst_sock=2 << 8, type=2, len=11, payload=b"message @@.")
    block = pcapng.packet(0, record.encode(one))
    player.write_text(_PLAYER.format(version=__version__, block=block, count=len(MESSAGES)))
    player.chmod(0o755)
    run("ip", "route", "add", "unreachable", "10.99.0.0/24", check=True)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        Far("player", port=far.PORT + 1, path=f"{player.parent}:/usr/bin:/bin") as host,
    ):
        config = far.HOME / "config"
        before = config.read_text()
        names = {"player": host.port, "home": far.HOME, "silent": silent.getsockname()[1]}
        config.write_text(before + _CONFIG.format(**names))
        try:
            yield
        finally:
            config.write_text(before)
            run("ip", "route", "delete", "unreachable", "10.99.0.0/24", check=True)


def test_twenty_hosts_of_which_three_are_dead() -> None:
    saved = FOLDER / "saved"
    hosts = [*PLAYING, *DEAD]
    ways = [word for name in hosts for word in ("--host", f"root@{name}")]
    began = time.monotonic()
    with (
        twenty_hosts(),
        running(
            *(str(far.COMMAND), "dump", *ways, "--remote-priv", "none", "-w", str(saved)),
            ready_s=3 * READY_TIMEOUT,
        ) as dump,
    ):
        print(f"capturing after {time.monotonic() - began:.1f} s")
        alive = len(PLAYING)
        wait_until(lambda: saved.read_bytes().count(MESSAGES[-1]) == alive, soon(60))
        said = dump.interrupt()
        assert dump.process.returncode == 0, said
    lines = dump.errors.read_text().splitlines()
    for sentence in DEAD.values():
        assert [sentence in line for line in lines].count(True) == 1
    found: dict[str, list[bytes]] = {}
    capture = reader.SavedCapture(str(saved))
    for span in capture.spans():
        payload = capture.decode(0, span.begin, span.end).payload
        found.setdefault(capture.host(span.interface), []).append(payload)
    assert found == {host: MESSAGES for host in PLAYING}
