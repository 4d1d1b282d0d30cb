"""``dump -b``: dumpcap's ring buffer of files."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_cli import Fake, run

from unixsock_bpf import record
from unixsock_bpf.cli import dump_output
from unixsock_bpf.cli.errors import Failure
from unixsock_bpf.formats import pcapng
from unixsock_bpf.record import Record


def block(number: int, sock: int = 1, size: int = 5) -> bytes:
    one = Record(
        src_sock=sock,
        dst_sock=sock + 1,
        type=2,
        message=number,
        len=size,
        payload=b"%05d" % number * (size // 5),
    )
    return pcapng.packet(1_000_000_000 + number, record.encode(one))


def numbers(path: Path) -> list[int]:
    return [record.decode(one.data).message for one in pcapng.packets(path.read_bytes())]


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def test_files_are_named_as_dumpcap_does_and_private(tmp_path: Path) -> None:
    batch = [block(number) for number in range(10)]
    assert run(Fake(batch), "-w", str(tmp_path / "a.b.pcapng"), "-b", "packets:4") == 0
    made = files(tmp_path)
    assert all(
        re.fullmatch(rf"a\.b_0000{at}_20\d{{12}}\.pcapng", path.name) for at, path in enumerate(made, 1)
    )
    assert [numbers(path) for path in made] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert {path.stat().st_mode & 0o777 for path in made} == {0o600}


def test_without_a_suffix(tmp_path: Path) -> None:
    (tmp_path / "x.d").mkdir()
    run(Fake([block(0)]), "-w", str(tmp_path / "x.d" / "a"), "-b", "packets:4")
    assert re.fullmatch(r"a_00001_\d{14}", files(tmp_path / "x.d")[0].name)


def test_the_oldest_are_removed_and_nothing_between_is_lost(tmp_path: Path) -> None:
    batches = [[block(number) for number in range(at, at + 7)] for at in range(0, 700, 7)]
    run(Fake(*batches), "-w", str(tmp_path / "a.pcapng"), "-b", "packets:10", "-b", "files:5")
    made = files(tmp_path)
    assert [path.name[2:7] for path in made] == ["00066", "00067", "00068", "00069", "00070"]
    assert [number for path in made for number in numbers(path)] == list(range(650, 700))


def test_a_file_ends_with_the_record_that_fills_it(tmp_path: Path) -> None:
    batch = [block(number, size=300) for number in range(100)]
    run(Fake(batch), "-w", str(tmp_path / "a.pcapng"), "-b", "filesize:5")
    made = files(tmp_path)
    assert [number for path in made for number in numbers(path)] == list(range(100))
    statistics = 100
    for path in made[:-1]:
        assert 5000 <= path.stat().st_size - statistics < 5000 + len(batch[0]) + statistics


def test_each_file_has_the_names_of_its_sockets(tmp_path: Path) -> None:
    batch = [
        pcapng.names([(1, "curl[5]"), (2, "dockerd[7] /run/docker.sock")]),
        pcapng.names([(8, "other[9]")]),
        *(block(number) for number in range(4)),
        pcapng.names([(1, "wget[6]")]),
        *(block(number) for number in range(4, 8)),
        block(8, sock=8),
    ]
    run(Fake(batch), "-w", str(tmp_path / "a.pcapng"), "-b", "packets:2")
    named = []
    for path in files(tmp_path):
        blocks = pcapng.Splitter().feed(path.read_bytes())
        named.append([name for one in blocks for name in pcapng.names_of(one)])
    client, server = (1, "curl[5]"), (2, "dockerd[7] /run/docker.sock")
    assert named == [
        [client, server, (8, "other[9]")],
        [client, server],
        [(1, "wget[6]"), server],
        [(1, "wget[6]"), server],
        [(8, "other[9]")],
    ]


def test_losses_are_in_the_file_where_they_happened(tmp_path: Path) -> None:
    source = Fake()

    def batches() -> Iterator[list[bytes]]:
        yield [block(0)]
        source.statistics.lost_messages = 3
        yield [block(1)]
        yield [block(2)]
        source.statistics.lost_messages = 5

    source.batches = batches()
    run(source, "-w", str(tmp_path / "a.pcapng"), "-b", "packets:1")
    dropped = []
    for path in files(tmp_path):
        (one,) = [b for b in pcapng.Splitter().feed(path.read_bytes()) if pcapng.is_statistics(b)]
        dropped.append(int.from_bytes(one[one.index(b"\5\0\x08\0") + 4 :][:8], "little"))
    assert dropped == [3, 0, 2]


def test_duration_also_while_nothing_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(dump_output.time, "monotonic", lambda: now)
    source = Fake()

    def batches() -> Iterator[list[bytes]]:
        nonlocal now
        yield [block(0)]
        for _ in range(6):
            now += 10
            source.each_second()  # type: ignore[attr-defined]
        now += 29
        yield [block(1)]
        now += 1
        yield [block(2)]

    source.batches = batches()
    run(source, "-w", str(tmp_path / "a.pcapng"), "-b", "duration:30", "-b", "files:3")
    assert [numbers(path) for path in files(tmp_path)] == [[], [1], [2]]


def test_text_formats_too(tmp_path: Path) -> None:
    batch = [block(number) for number in range(3)]
    run(Fake(batch), "--format", "json", "-w", str(tmp_path / "a.jsonl"), "-b", "packets:2")
    assert [path.read_text().count("\n") for path in files(tmp_path)] == [2, 1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-b", "packets:2"], "give -w FILE"),
        (["-w", "-", "-b", "packets:2"], "give -w FILE"),
        (["-w", "x", "-b", "files:2"], "say when the next file begins"),
        (["-w", "x", "-b", "packets:0"], "'packets:0' is not one of duration:N, filesize:N"),
        (["-w", "x", "-b", "duration:nan"], "'duration:nan' is not"),
        (["-w", "x", "-b", "pickets:1"], "'pickets:1' is not"),
        (["-w", "x", "-b", "filesize:9" + "9" * 5000], "is not one of"),
        (["-w", "/no/such/folder/x", "-b", "packets:1"], "no such file"),
    ],
)
def test_nonsense(words: list[str], said: str) -> None:
    with pytest.raises(Failure, match=re.escape(said)):
        run(Fake(), *words)


def test_a_folder_that_vanishes_leaves_what_was_captured(tmp_path: Path) -> None:
    folder, source = tmp_path / "d", Fake()
    folder.mkdir()

    def batches() -> Iterator[list[bytes]]:
        yield [block(0), block(1)]
        folder.rename(tmp_path / "elsewhere")
        yield [block(2)]

    source.batches = batches()
    with pytest.raises(Failure, match="no such file"):
        run(source, "-w", str(folder / "a.pcapng"), "-b", "packets:2")
    assert [numbers(path) for path in files(tmp_path / "elsewhere")] == [[0, 1]]


def test_wiresharks_tools_take_each_file(tmp_path: Path) -> None:
    batch = [pcapng.names([(1, "curl[5]")]), *(block(number) for number in range(5))]
    run(Fake(batch), "-w", str(tmp_path / "a.pcapng"), "-b", "packets:2")
    done = subprocess.run(
        ["capinfos", "-TrBcm", *map(str, files(tmp_path))], capture_output=True, text=True, check=True
    )
    assert [line.split(",")[1] for line in done.stdout.splitlines()] == ["2", "2", "1"]
