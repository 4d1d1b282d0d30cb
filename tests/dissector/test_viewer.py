"""The viewers' zip, unpacked as its guide has it."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

from unixsock_bpf import record
from unixsock_bpf.formats import pcapng
from unixsock_bpf.record import Record

ROOT = Path(__file__).parents[2]


def test_an_unpacked_zip_dissects(tmp_path: Path) -> None:
    made = tmp_path / "viewer.zip"
    subprocess.run([sys.executable, str(ROOT / "packaging/viewer"), str(made)], check=True)
    with zipfile.ZipFile(made) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "unpacked")
    assert {"GUIDE.md", "LICENSE", "profile.zip", "lua/plugins/unixsock.lua"} <= set(names)
    with zipfile.ZipFile(tmp_path / "unpacked/profile.zip") as profile:
        assert "Unix sockets/preferences" in profile.namelist()
    home = tmp_path / "home"
    (home / ".local/lib").mkdir(parents=True)
    (tmp_path / "unpacked/lua").rename(home / ".local/lib/wireshark")
    capture = tmp_path / "a.pcapng"
    one = Record(
        src_sock=1, dst_sock=2, type=1, payload=b"GET / HTTP/1.1\r\n\r\n", len=18, dst_name=b"/run/x"
    )
    capture.write_bytes(pcapng.file_header() + pcapng.packet(1, record.encode(one)))
    fields = ["-T", "fields", "-e", "unixsock.path", "-e", "http.request.method"]
    done = subprocess.run(
        ["tshark", "-r", str(capture), *fields],
        env=os.environ | {"HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["/run/x", "GET"]
    assert "error" not in done.stderr.lower()
