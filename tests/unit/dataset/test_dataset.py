"""A dataset: written from captures, read back by pyarrow and DuckDB, and turned into a capture again."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import stat
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from dissector.captures import START, conversation, side, write
from exports.queries import QUERIES

from unixsock_bpf.cli.errors import Failure
from unixsock_bpf.cli.main import main
from unixsock_bpf.dataset.limits import Limits
from unixsock_bpf.dataset.schema import COLUMNS, DISSECTED
from unixsock_bpf.dataset.writer import DatasetError, DatasetWriter
from unixsock_bpf.formats import pcapng, reader
from unixsock_bpf.record import Event, Fd, FdKind, Flag, Record, SocketType, encode

CAPTURES = Path(__file__).parents[2] / "dissector/captures"
DOCS = Path(__file__).parents[3] / "docs"


def export(capture: Path, folder: Path, *more: str) -> list[dict[str, object]]:
    assert main(["export", str(capture), "--format", "parquet", "-w", str(folder), *more]) == 0
    return rows(folder)


def rows(folder: Path) -> list[dict[str, object]]:
    table = pyarrow.dataset.dataset(str(folder), partitioning="hive").to_table()
    return sorted(table.to_pylist(), key=lambda row: row["time_ns"])


def ask(capfd: pytest.CaptureFixture[str], folder: Path, sql: str) -> list[dict[str, object]]:
    capfd.readouterr()
    assert main(["query", sql, str(folder), "--format", "json"]) == 0
    return [json.loads(line) for line in capfd.readouterr().out.splitlines()]


ODD = [
    *conversation(b"/run/docker.sock", [(True, b"DELETE /x HTTP/1.1\r\n\r\n"), (False, b"\xff\0binary")]),
    replace(side(True, b"\0abstract\xfe"), payload=b"", len=0, flags=Flag.TRUNCATED, src_pid=0, netns=7),
    replace(side(True, b"/x"), event=Event.LOST, lost=(3, 4096, 1), seq=(1 << 64) - 1, src_inode=1 << 63),
    replace(side(True, b"/x"), event=Event.SEND_ERROR, errno=11, creds=(1, 2, 3), cgroup=b"/system.slice"),
    replace(
        side(False, b"/x", SocketType.SEQPACKET), payload=b"fds", len=3, fds_count=2,
        fds=[Fd(FdKind.FILE, 5, b"/tmp/\xff"), Fd(FdKind.SOCKET, 6)], src_uid=(1 << 32) - 1,
    ),
    Record(event=99, type=77, role=9, unknown=[(999, b"later")]),
]  # fmt: skip


def test_columns_say_what_the_records_say(tmp_path: Path) -> None:
    found = export(write(tmp_path / "a.pcapng", ODD), tmp_path / "d", "--host", "db1")
    assert [row["event"] for row in found] == [
        "data",
        "data",
        "close",
        "close",
        "data",
        "lost",
        "send_error",
        "data",
        "event 99",
    ]
    first = found[0]
    assert (first["host"], first["path"], first["server"], first["type"]) == (
        "db1",
        "/run/docker.sock",
        "dst",
        "stream",
    )
    assert (first["src_pid"], first["src_comm"], first["src_uid"], first["text"]) == (
        10,
        "client",
        0,
        "DELETE /x HTTP/1.1\r\n\r\n",
    )
    assert (first["time_ns"], str(first["date"])) == (START, "2023-11-14")
    assert first["time"].timestamp() == START / 1e9
    assert (found[1]["text"], found[1]["payload"]) == (None, b"\xff\0binary")
    # What is not known is null.
    odd = found[4]
    assert (odd["src_pid"], odd["src_uid"], odd["src_inode"], odd["payload"]) == (None, None, None, b"")
    assert odd["path"] == "@abstract\\xfe"
    lost, error, fds, last = found[5:]
    assert (lost["lost_messages"], lost["lost_bytes"], lost["payload"], lost["len"]) == (3, 4096, None, None)
    assert (error["error"], error["cgroup"]) == ("EAGAIN", "/system.slice")
    assert (fds["fds_count"], fds["src_uid"], fds["type"]) == (2, (1 << 32) - 1, "seqpacket")
    assert (last["path"], last["type"], last["src_sock"]) == (None, "?", None)


def test_a_capture_comes_back_whole(tmp_path: Path) -> None:
    """Every record, with all its elements."""
    records = [one for one in ODD if one.type != 77 and one.src_sock]
    capture = write(tmp_path / "a.pcapng", records)
    export(capture, tmp_path / "d")
    found = tmp_path / "found.pcapng"
    assert (
        main(
            [
                "query",
                "SELECT * FROM records WHERE text LIKE 'DELETE %'",
                str(tmp_path / "d"),
                "-w",
                str(found),
            ]
        )
        == 0
    )
    assert [encode(one.record) for one in reader.read(str(found))] == [
        encode(one.record) for one in reader.read(str(capture))
    ]
    assert [one.time_ns for one in reader.read(str(found))] == [
        one.time_ns for one in reader.read(str(capture))
    ]
    assert stat.S_IMODE(found.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("column", "value", "why"),
    [
        ("src_pid", "text", "a row holds what no record does"),
        ("src_pid", 1 << 40, "a row holds what no record does"),
        ("payload", "text", "a row holds what no record does"),
        ("payload", bytes(1 << 20), "a row holds what no record does"),
        ("event", "later", "a row holds what no record does"),
        ("event", 5, "a row holds what no record does"),
        ("time_ns", -1, "a row holds what no record does"),
        ("time_ns", None, "a row holds what no record does"),
        ("netns", None, None),
        ("host", "h" * 70_000, None),
        ("event", "event 99", None),
        ("elements", ..., "there is no column 'elements'"),
    ],
)
def test_rows_of_others(
    column: str, value: object, why: str | None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    export(write(tmp_path / "a.pcapng", conversation(b"/run/x", [(True, b"x")])), tmp_path / "d")
    (file,) = files(tmp_path / "d")
    table = pq.ParquetFile(file).read().drop([column])
    if value is not ...:
        kind = pa.int64() if value is None else None
        table = table.append_column(column, pa.array([value] * len(table), kind))
    pq.write_table(table, file)
    found = tmp_path / "found.pcapng"
    status = main(["query", "SELECT * FROM records", str(tmp_path / "d"), "-w", str(found)])
    err = capfd.readouterr().err
    assert status == (1 if why else 0)
    assert err == (f"unixsock: {why}: the dataset is of another program or version\n" if why else "")
    if value == "event 99":
        assert {one.record.event for one in reader.read(str(found))} == {99}


def test_a_dataset_is_not_written_over(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    export(write(tmp_path / "a.pcapng", ODD), tmp_path / "d")
    (file,) = files(tmp_path / "d")
    before = file.read_bytes()
    assert main(["query", "SELECT * FROM records", str(tmp_path / "d"), "-w", str(file)]) == 1
    assert "which is read; choose another name" in capfd.readouterr().err
    assert file.read_bytes() == before


def test_hits_are_widened_to_their_conversations_and_no_others(tmp_path: Path) -> None:
    ours = conversation(b"/run/a", [(True, b"ask"), (False, b"answer")])
    others = [replace(one, src_sock=one.src_sock + 9, dst_sock=one.dst_sock + 9) for one in ours]
    for host in ("db1", "db2"):
        export(write(tmp_path / "a.pcapng", [*others, *ours]), tmp_path / "d", "--host", host)
    found = tmp_path / "found.pcapng"
    sql = (
        "SELECT host, src_sock, dst_sock FROM messages"
        " WHERE host = 'db2' AND text = 'answer' AND src_sock < 8200"
    )
    assert main(["query", sql, str(tmp_path / "d"), "-w", str(found)]) == 0
    assert [one.record.payload for one in reader.read(str(found)) if one.record.event == Event.DATA] == [
        b"ask",
        b"answer",
    ]
    interfaces: list[pcapng.Interface] = []
    list(pcapng.spans(found.read_bytes(), interfaces))
    assert [one.description for one in interfaces] == ["Unix sockets of db2"]


def test_the_host_is_the_captures(tmp_path: Path) -> None:
    """Of a file that two hosts' captures were merged into."""
    data = encode(side(True, b"/x"))
    blocks = [pcapng.section_header("", "", "")]
    blocks += [pcapng.interface("x", f"Unix sockets of {host}", 0) for host in ("db1", "db2")]
    blocks += [pcapng.interface("x", "Unix sockets", 0)]
    blocks += [pcapng.packet(START + number, data, number) for number in (1, 0, 2)]
    (tmp_path / "a.pcapng").write_bytes(b"".join(blocks))
    assert sorted(str(row["host"]) for row in export(tmp_path / "a.pcapng", tmp_path / "d")) == [
        "None",
        "db1",
        "db2",
    ]


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("date=*/*.parquet"))


def test_files_are_ours_and_sorted_and_small_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from unixsock_bpf.dataset import writer as module

    monkeypatch.setattr(module, "_ROWS", 100)
    writer = DatasetWriter(str(tmp_path / "d"), "h", Limits(size=20_000))
    for number in range(2000):
        payload = os.urandom(50)
        record = replace(side(True, b"/x"), payload=payload, len=len(payload))
        writer.add(START + (number ^ 3) * 1000, encode(record), "h")
    writer.close()
    found = files(tmp_path / "d")
    assert 3 < len(found) < 19
    for file in found:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        read = pq.ParquetFile(file)
        for group in range(read.num_row_groups):
            times = read.read_row_group(group, ["time_ns"]).column(0).to_pylist()
            assert times == sorted(times)
        assert read.metadata.row_group(0).column(0).compression == "ZSTD"
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o700
    assert len(rows(tmp_path / "d")) == 2000


def test_files_are_rotated_by_age(tmp_path: Path) -> None:
    now = [0.0]
    writer = DatasetWriter(str(tmp_path / "d"), "h", Limits(age_s=60), clock=lambda: now[0])
    data = encode(side(True, b"/x"))
    writer.add(START, data, "h")
    now[0] = 61
    writer._close_old()
    assert len(files(tmp_path / "d")) == 1
    writer.add(START + 1, data, "h")
    writer.close()
    assert [pq.read_metadata(file).num_rows for file in files(tmp_path / "d")] == [1, 1]


def test_a_clock_that_jumps(tmp_path: Path) -> None:
    """Each record is in its day's folder; few files are open at a time."""
    day = 86_400_000_000_000
    data = encode(side(True, b"/x"))
    writer = DatasetWriter(str(tmp_path / "d"), "h")
    for number in range(40):
        writer.add(START + (number * 7 % 10) * day, data, "h")
        assert len(writer._parts) <= 4
    writer.close()
    found = rows(tmp_path / "d")
    assert len(found) == 40
    assert {str(row["date"]) for row in found} == {f"2023-11-{at}" for at in range(14, 24)}


def test_a_full_disk_leaves_the_files_that_were_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encode(side(True, b"/x"))
    writer = DatasetWriter(str(tmp_path / "d"), "h")
    writer.add(START, data, "h")
    writer.close()
    writer = DatasetWriter(str(tmp_path / "d"), "h")
    writer.add(START, data, "h")
    (fd,) = {os.open("/dev/full", os.O_WRONLY)}
    monkeypatch.setattr(os, "open", lambda *_: fd)
    with pytest.raises(DatasetError, match=r"cannot write .*: no space left on device"):
        writer.close()
    monkeypatch.undo()
    assert len(rows(tmp_path / "d")) == 1


def test_files_of_others_are_left_out_or_filled(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Half-written files, files of an older version, and unfinished ones."""
    folder = tmp_path / "d['*?]"
    export(write(tmp_path / "a.pcapng", ODD), folder)
    (whole,) = files(folder)
    (whole.parent / "half.parquet").write_bytes(whole.read_bytes()[:-100])
    (whole.parent / "empty.parquet").write_bytes(b"")
    os.mkfifo(whole.parent / "pipe.parquet")
    (whole.parent / ".h.parquet.unfinished").write_bytes(b"PAR1")
    old = pq.ParquetFile(whole).read().drop(["elements", "lost_bytes"])
    pq.write_table(old, whole.parent / "old.parquet")
    capfd.readouterr()
    assert (
        main(
            [
                "query",
                "SELECT count(*) AS n, count(elements) AS e FROM records",
                str(folder),
                "--format",
                "csv",
            ]
        )
        == 0
    )
    out, err = capfd.readouterr()
    assert out.split() == ["n,e", "18,9"]
    assert err.count("it is not a whole Parquet file") == 3


def test_queries(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    capture = write(tmp_path / "a.pcapng", ODD)
    export(capture, tmp_path / "d", "--host", "db1")
    answers = {name: ask(capfd, tmp_path / "d", sql) for name, sql in QUERIES.items()}
    (who,) = answers["who called DELETE"]
    assert (who["host"], who["src_comm"], who["src_pid"], who["src_uid"]) == ("db1", "client", 10, 0)
    (day,) = answers["days, and what is not text"]
    assert (day["n"], day["texts"], day["payloads"], day["errors"], day["lost"]) == (9, 3, 4, 1, 3)


def test_results_as_table_and_csv(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    export(write(tmp_path / "a.pcapng", ODD), tmp_path / "d")
    sql = (
        "SELECT text, payload, 'x\x1b[31m' || repeat('y', 200) AS long, NULL AS nothing"
        " FROM messages ORDER BY time_ns LIMIT 2"
    )
    capfd.readouterr()
    assert main(["query", sql, str(tmp_path / "d")]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].split() == ["text", "payload", "long", "nothing"]
    assert "\\x1b[31m" in lines[1]
    assert "…" in lines[1]
    assert "\x1b" not in "".join(lines)
    assert main(["query", sql, str(tmp_path / "d"), "--format", "csv"]) == 0
    parsed = list(csv.reader(io.StringIO(capfd.readouterr().out)))
    assert parsed[1][0] == "DELETE /x HTTP/1.1\r\n\r\n"
    assert parsed[2][:2] == ["", "/wBiaW5hcnk="]


@pytest.mark.parametrize(
    ("sql", "sentence"),
    [
        ("SELEC 1", "DuckDB cannot answer: Parser Error"),
        ("SELECT nonsense FROM records", "DuckDB cannot answer: Binder Error"),
        ("SELECT 1; DROP TABLE x", "this is not one statement that asks"),
        ("COPY records TO 'stolen.csv'", "this is not one statement that asks"),
        ("", "this is not one statement that asks"),
        ("SELECT CAST('x' AS INT) FROM records", "DuckDB cannot answer: Conversion Error"),
    ],
)
def test_wrong_sql_is_a_sentence(
    sql: str, sentence: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    export(write(tmp_path / "a.pcapng", ODD), tmp_path / "d")
    capfd.readouterr()
    for more in ([], ["-w", str(tmp_path / "out.pcapng")] if sql and "CAST" not in sql else []):
        assert main(["query", sql, str(tmp_path / "d"), *more]) == 1
        err = capfd.readouterr().err
        assert re.match(f"unixsock: ({sentence})", err), err
        assert err.count("\n") == 1
    assert not Path("stolen.csv").exists()


def test_no_dataset_is_a_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for folder, sentence in ((tmp_path / "none", "there is no such folder"), (tmp_path, "holds no dataset")):
        assert main(["query", "SELECT 1", str(folder)]) == 1
        assert sentence in capfd.readouterr().err
    assert main(["export", str(CAPTURES / "http.pcapng"), "--format", "parquet", "-w", "nonsense://x"]) == 1
    assert re.fullmatch(r"unixsock: cannot use nonsense://x: .*\n", capfd.readouterr().err)


def test_a_dataset_in_another_file_system(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """By a URI, as S3's are."""
    folder = tmp_path / "d"
    assert (
        main(["export", str(CAPTURES / "http.pcapng"), "--format", "parquet", "-w", f"file://{folder}"]) == 0
    )
    assert len(rows(folder)) > 4


def test_dissected(tmp_path: Path) -> None:
    found = export(CAPTURES / "docker.pcapng", tmp_path / "d", "--dissect")
    first = [row for row in found if row["event"] == "data"][:2]
    assert (first[0]["protocol"], first[0]["method"]) == ("HTTP", "HEAD")
    assert str(first[0]["info"]).startswith("HEAD /_ping")
    assert first[1]["response_time"] == pytest.approx(0.0014, abs=0.0002)
    only = export(CAPTURES / "docker.pcapng", tmp_path / "e", "-Y", "http.request.method == GET", "--dissect")
    assert [row["method"] for row in only] == ["GET", "GET"]


def test_each_column_is_documented() -> None:
    text = (DOCS / "dataset.md").read_text()
    named = re.findall(r"^\| (`.*?`) \|", text, re.MULTILINE)
    documented = {name for line in named for name in re.findall(r"`(\w+)`", line)}
    assert documented == {name for name, _ in (*COLUMNS, *DISSECTED)} | {"date"}


def test_a_capture_that_is_cut_short(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = write(tmp_path / "a.pcapng", ODD).read_bytes()
    (tmp_path / "cut.pcapng").write_bytes(data[:-50])
    assert (
        main(["export", str(tmp_path / "cut.pcapng"), "--format", "parquet", "-w", str(tmp_path / "d")]) == 1
    )
    assert "the 8 records before that were exported" in capfd.readouterr().err
    assert len(rows(tmp_path / "d")) == 8
    assert pa.types.is_dictionary(pq.read_schema(files(tmp_path / "d")[0]).field("path").type)


def test_dump_writes_a_dataset(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from exports.fake_capture import dump

    folder = tmp_path / "d"
    assert dump(500, ["--format", "parquet", "-w", str(folder)]) == 0
    found = rows(folder)
    assert [row["message"] for row in found] == list(range(500))
    assert {row["host"] for row in found} == {os.uname().nodename}
    with pytest.raises(Failure, match="give -w FOLDER"):
        dump(1, ["--format", "parquet"])
