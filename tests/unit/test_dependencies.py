"""A missing dependency ends in one sentence, and a status other than 0."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import unixsock_bpf
from unixsock_bpf import own_files, record
from unixsock_bpf.cli.main import main
from unixsock_bpf.formats import pcapng
from unixsock_bpf.install import checks
from unixsock_bpf.record import Record
from unixsock_bpf.wireshark import tshark

ROOT = Path(__file__).resolve().parents[2]
REMEDY = "the Python package lark is missing: install python3-lark ('sudo apt install python3-lark')"


def python(code: str, *arguments: str, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    # The virtual environment's own finder would find here what a copy lacks.
    program = sys.executable if root == ROOT else os.path.realpath(sys.executable)
    return subprocess.run(
        [program, "-c", code, *arguments],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def extcap(*arguments: str, before: str = "pass", root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    code = f"import sys; {before}; from unixsock_bpf.extcap.main import main; sys.exit(main())"
    return python(code, *arguments, root=root)


WITHOUT_LARK = "sys.modules['lark'] = None"
INTERFACE = ("--extcap-interface", "unixsock")


def test_the_filter_box_tells_that_lark_is_missing() -> None:
    done = extcap("--extcap-capture-filter", "path /x", *INTERFACE, before=WITHOUT_LARK)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(REMEDY)
    assert done.stdout.count("\n") == 1


def test_a_capture_tells_it_once_its_pipe_is_open(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(fifo.read_bytes()))
    reader.start()
    done = extcap(
        *("--capture", *INTERFACE, "--fifo", str(fifo), "--extcap-capture-filter", "fds"), before=WITHOUT_LARK
    )
    reader.join(10)
    assert (done.returncode, read) == (1, [b""])
    assert f"Capture filter: {REMEDY}" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("words", [["dump", "/x"], ["sockets", "/x"], ["check", "--filter", "/x"]])
def test_the_command_tells_it(words: list[str]) -> None:
    done = python(
        f"import sys; {WITHOUT_LARK}; from unixsock_bpf.cli.main import main; sys.exit(main())", *words
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert REMEDY in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_privileged_helper_does_not_need_it() -> None:
    done = python(
        f"import sys; {WITHOUT_LARK}; import unixsock_bpf.privilege.helper\n"
        "from unixsock_bpf.privilege.protocol import *; from unixsock_bpf.options import Settings\n"
        "print(decode_request(encode_request(Request(Settings()))[HEAD:]).settings.snaplen)"
    )
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_the_privileged_helper_tells_that_seccomp_is_missing() -> None:
    done = python(
        "import sys; sys.modules['seccomp'] = None\n"
        "from unixsock_bpf.privilege.helper import main; main(65534)"
    )
    assert done.returncode == 1
    assert "install python3-seccomp ('sudo apt install python3-seccomp')" in done.stderr
    assert done.stderr.count("\n") == 1


def test_python_that_is_too_old_is_told() -> None:
    done = extcap("--extcap-interfaces", before="sys.version_info = (3, 8, 1, 'final', 0)")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "unixsock: Python 3.9 or later is needed; this is 3.8\n"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package that the test may damage."""
    root = tmp_path / "copy"
    for part in ("unixsock_bpf", "dissector"):
        shutil.copytree(ROOT / part, root / part, ignore=shutil.ignore_patterns("__pycache__"))
    return root


def test_a_part_of_the_package_that_is_missing_is_told(copy: Path) -> None:
    (copy / "unixsock_bpf/linux/listed_sockets.py").unlink()
    done = extcap("--extcap-config", *INTERFACE, "--extcap-reload-option", "path", root=copy)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "unixsock: this installation is incomplete, "
        "unixsock_bpf.linux.listed_sockets is missing: install it again\n"
    )
    (copy / "unixsock_bpf/filter/grammar.lark").unlink()
    done = python(
        "import sys; from unixsock_bpf.cli.main import main; sys.exit(main())", "dump", "/x", root=copy
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "grammar.lark cannot be read: install this package again" in done.stderr


def test_a_dissector_that_is_missing_is_told(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(copy / "dissector")
    capture = tmp_path / "a.pcapng"
    packet = pcapng.packet(1, record.encode(Record(dst_name=b"/run/x", type=1)))
    capture.write_bytes(pcapng.section_header("", "", "") + pcapng.interface("unixsock", "", 0) + packet)
    command = "import sys; from unixsock_bpf.cli.main import main; sys.exit(main())"
    done = python(command, "export", str(capture), "-Y", "unixsock", root=copy)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("unixsock: the dissector is missing: there is no ")
    assert done.stderr.count("\n") == 1
    monkeypatch.setattr(own_files, "ROOT", copy)
    with pytest.raises(unixsock_bpf.MessagesError, match="the dissector is missing: there is no "):
        list(unixsock_bpf.read(capture))


def test_a_dissector_that_cannot_be_read_is_told(
    empty_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["install"])
    # Root may read anything, but not as a file what is a folder.
    library = empty_home / ".local/share/unixsock/dissector/unixsock.lua"
    library.unlink()
    library.mkdir()
    found = checks.dissector()
    assert not found.met
    assert "cannot be read (Is a directory)" in found.found
    monkeypatch.setattr(tshark, "dissector_source", lambda: library)
    with pytest.raises(tshark.TsharkError, match="cannot be read"):
        tshark.available()
