"""``live(hosts=…)``, with a stand-in for ssh."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

import unixsock_bpf

ROOT = Path(__file__).parents[3]
SSH = f"""\
#!/bin/sh
while [ "$1" != -- ]; do shift; done
host=$2
shift 4  # sudo -n
export FAKE_NAME=$host FAKE_RATE=20 PYTHONPATH={ROOT}
exec {sys.executable} {ROOT}/tests/unit/fakes/fake_remote.py "$@"
"""


def test_messages_of_two_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text(SSH)
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = list(unixsock_bpf.live("path /x", host="aa", hosts=["bb"], count=12))
    assert len(found) == 12
    assert {one.payload[:2] for one in found} == {b"aa", b"bb"}
    for one in found:
        assert one.packet.frame_info.interface_name.encode() == one.payload[:2]
