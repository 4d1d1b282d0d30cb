"""The bench's own parts: generator, counting of losses, report."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest
from benchmarks import counted, measure, programs, report, startup, workloads
from benchmarks.observers import Observer
from benchmarks.workloads import Workload

MESSAGE = b"<BEGIN#" + b"." * 52 + b"#END>"


@pytest.fixture(scope="module", autouse=True)
def _generator() -> None:
    workloads.build()


@pytest.mark.parametrize("workload", workloads.WORKLOADS, ids=lambda w: w.key)
@pytest.mark.parametrize("family", ["unix", "tcp"])
def test_every_workload_runs(workload: Workload, family: str) -> None:
    if not workload.speaks(family):
        return
    said = workloads.run(workload, family, 0.05)
    assert said.messages > 0
    assert said.bytes == said.messages * workload.size
    assert said.seconds >= 0.05
    assert said.each == pytest.approx(said.seconds / said.messages * 1e6)


def test_a_paced_blast_keeps_its_rate() -> None:
    said = workloads.run(Workload("paced", "", "paced", 64, number=2000), "unix", 0.5)
    assert 900 <= said.messages <= 1000


@pytest.mark.parametrize("lossy", [False, True])
def test_losses_are_found(lossy: bool) -> None:
    tap = Observer("wiretap")
    tap.output.write_bytes(b"before" + MESSAGE)
    since = tap.position()
    with tap.output.open("ab") as file:
        for number in range(30):
            if not lossy or number % 3:
                file.write(struct.pack("<I", number) + MESSAGE)
    assert tap.seen(since, 64) == ((20, 20 * 64) if lossy else (30, 30 * 64))
    tap.forget()


def test_tcp_payload_is_counted_without_marks() -> None:
    tap = Observer("pcap")
    segment = (
        bytes(14) + b"\x45\0" + struct.pack(">H", 20 + 20 + 64) + bytes(16) + bytes(12) + b"\x50" + bytes(7)
    )
    with tap.output.open("wb") as file:
        file.write(bytes(24))
        for payload in (MESSAGE, b"_" * 64, MESSAGE):
            file.write(struct.pack("<8xII", len(segment) + 64, len(segment) + 64) + segment + payload)
        file.write(struct.pack("<8xII", 1000, 1000))  # tcpdump has not written the rest yet
    assert workloads.segments(tap.output) == 2 * 64
    tap.forget()


def _row(observer: str, workload: str, alone: float, each: float, lost: int = 0) -> dict[str, object]:
    return {
        "round": 1, "observer": observer, "workload": workload, "alone": alone, "each": each,
        "messages": 1000, "bytes": 64_000, "cpu": 2.0, "lost": lost, "lost_bytes": lost * 64,
    }  # fmt: skip


def test_the_report_says_what_was_measured() -> None:
    rows = [_row("fentry", "blast", 5, 5 + added) for added in (9, 10, 50)]
    rows.append(_row("fentry", "blast", 5, 500, lost=1) | {"round": 0})
    rows += [
        _row("peer", "blast", 5, 85, lost=7),
        _row("peer", "pingpong", 40, 80),
        _row("fentry", "pingpong", 40, 60),
    ]
    data = {
        "rows": rows, "rates": {"fentry": {"good": 2500, "bad": 0}, "peer": {"good": 1000, "bad": 1100}},
        "growth": [], "probe": [dict(observer="fentry", workload="blast", each=each) for each in (1, 2, 9)],
        "idle": {"fentry": [0.0]}, "startup": {"compile": 1.5}, "missing": ["strace"],
        "machine": {"kernel": "6.1", "cpus": 2, "cpu": "slow", "emulated": True},
    }  # fmt: skip
    native = {"list interfaces": 0.05, startup.LOADED: 0.7, startup.NEW_LOADED: 0.3}
    seconds = {"HTTP": {"packet list": {"ours": 3.0, "lo": 2.0, "tcp": 1.25}}}
    made = report.parts(data, native, seconds, "dump {path}", "today")
    before = report.PAGE.read_text()
    text = report.put_into(before, made)
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("|")}
    assert re.search(r"0\.12 \| \*\*missed", lines["blast 64 B, added: this / PEER"])  # 10 / 80
    assert re.search(r"0\.50 \| \*\*missed", lines["ping-pong 64 B, added: this / PEER"])
    assert "2.50 | **missed" in lines["highest rate without loss: this / PEER"]
    assert "| met |" in lines["listing interfaces, natively"]
    assert "missed" in lines["from exec to a loaded probe, natively, the very first time"]
    assert "not measured" in lines["the same with a filter that was used before"]
    assert "not measured" in lines["rejected socket's ping-pong, slower by"]
    assert "blast 64 B | 2.00 | 40.0 | - | - |" in text
    assert "1 of 4,000; 64 B | 7 of 1,000; 448 B" in text
    assert "not installed or not able to run here: strace" in text
    assert "dump {path}" in text
    assert "| HTTP | packet list | 3.00 | 2.00 | 1.50, ≤ 2: met | 1.25 | 2.40, ≤ 2: **missed** |" in text

    def by_hand(page: str) -> str:
        return re.sub(r"(<!-- made: \S+ -->\n).*?(?=<!-- end -->\n)", r"\1", page, flags=re.DOTALL)

    assert by_hand(text) == by_hand(before)  # whatever else the page has is left as it is
    assert report.put_into(text, made) == text
    with pytest.raises(ValueError, match="no single part <!-- made: other -->"):
        report.put_into(before, {"other": ""})


def test_each_program_counts_once_whoever_has_it(tmp_path: Path) -> None:
    for process, number, identity, time in ((1, 3, 7, 500), (1, 4, 8, 20), (22, 5, 7, 500)):
        folder = tmp_path / str(process) / "fdinfo"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / str(number)).write_text(
            f"pos:\t0\nprog_id:\t{identity}\nrun_time_ns:\t{time}\nrun_cnt:\t2\n"
        )
    (tmp_path / "1/fdinfo/9").write_text("pos:\t0\nlink_type:\ttracing\nprog_id:\t7\n")
    assert programs.nanoseconds(tmp_path) == 520


def test_the_highest_rate_is_between_good_and_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "keeps_up", lambda _observer, rate, _seconds: (rate <= 5_300, rate))
    found = measure.highest_rate(Observer("any"), 1)
    assert 4_000 < found["good"] <= 5_300 < found["bad"] <= 6_000
    monkeypatch.setattr(measure, "keeps_up", lambda _observer, rate, _seconds: (True, min(rate, 30_000)))
    assert measure.highest_rate(Observer("any"), 1) == {"good": 30_000, "bad": 0.0}


def _counted(observer: str, workload: str, traced: float, **more: float) -> dict[str, object]:
    return {
        "workload": workload, "family": "tcp" if observer == "tcpdump" else "unix", "observer": observer,
        "messages": 1000, "traced": traced, "wall": traced + 1000, **more,
    }  # fmt: skip


def test_counted_instructions_become_a_part_of_the_document() -> None:
    rows = [_counted("", "blast", 8_000), _counted("tcpdump", "blast", 13_000, lost=0, lost_bytes=0)]
    rows += [_counted("", "blast", 6_000) | {"family": "tcp"}]
    rows += [
        _counted("fentry", "blast", 10_000 + more, capturing=3_000, lost=1, lost_bytes=64)
        for more in (0, 1, 900)
    ]
    part = counted.part({"6.1": {"kernel": "6.1.0", "rows": rows, "missing": ["strace"]}}, "", "today")
    assert "| blast 64 B | 8.00 | 10.00 (+2.00) | 6.00 | 13.00 (+7.00) |" in part
    assert "| blast 64 B | 9.00 | 11.00 (+2.00) | 7.00 | 14.00 (+7.00) |" in part
    assert "| blast 64 B | 3.00 | - |" in part
    assert "| blast 64 B | 3 of 3,000; 192 B | 0 of 1,000 |" in part
    assert "not able to run here: strace" in part
    page = "# Title\n\n<!-- made: counted -->\n<!-- end -->\n\n## Rest\n"
    once = report.put_into(page, {"counted": part})
    assert once.startswith("# Title\n\n<!-- made: counted -->\n\n## Counted in")
    assert once.endswith("\n\n<!-- end -->\n\n## Rest\n")
    assert report.put_into(once, {"counted": part}) == once
