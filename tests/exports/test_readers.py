"""Readers that are large to install: PlantUML, Mermaid, a HAR schema, Bustle, a message broker."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from dissector.captures import conversation, write
from patience import soon

from unixsock_bpf.cli.main import main

ROOT = Path(__file__).parents[2]
CAPTURES = ROOT / "tests/dissector/captures"
NODE = ROOT / ".cache/node"
TOOLS = ROOT / ".cache/tools/usr"
HOSTILE = b"GET /%getenv(1)!include<b>;#1;end\n@enduml HTTP/1.1\r\n\r\n"


def export(capture: Path, form: str, output: Path) -> Path:
    assert main(["export", str(capture), "--format", form, "-w", str(output)]) == 0
    return output


def hostile(path: Path) -> Path:
    records = conversation(
        b"/run/x", [(True, HOSTILE), (False, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")]
    )
    return write(path, [replace(one, src_comm=b'"; end %%{init', dst_comm=b"<img:x>") for one in records])


def test_mermaid_parses_the_diagrams(tmp_path: Path) -> None:
    files = [export(CAPTURES / "docker.pcapng", "mermaid", tmp_path / "docker")]
    files.append(export(hostile(tmp_path / "hostile.pcapng"), "mermaid", tmp_path / "hostile"))
    script = ROOT / "tests/exports/mermaid_parse.mjs"
    done = subprocess.run(["node", script, *files], cwd=NODE, capture_output=True, text=True, check=True)
    docker, odd = map(json.loads, done.stdout.splitlines())
    assert docker["type"] == odd["type"] == "sequence"
    assert len(docker["actors"]) == 3
    assert len(docker["messages"]) == 8
    assert len(odd["actors"]) == 4
    assert len(odd["messages"]) == 2


def test_plantuml_draws_the_diagrams(tmp_path: Path) -> None:
    for capture in (CAPTURES / "docker.pcapng", hostile(tmp_path / "a.pcapng")):
        text = export(capture, "plantuml", tmp_path / "a").read_bytes()
        done = subprocess.run(["plantuml", "-tsvg", "-pipe"], input=text, capture_output=True, check=True)
        assert b"<svg" in done.stdout
        assert b"GET" in done.stdout
        assert b"Syntax Error" not in done.stdout
    assert b"getenv(1)" in done.stdout


def test_har_is_valid(tmp_path: Path) -> None:
    files = [export(hostile(tmp_path / "a.pcapng"), "har", tmp_path / "hostile")]
    files += [
        export(CAPTURES / f"{name}.pcapng", "har", tmp_path / name) for name in ("docker", "http", "redis")
    ]
    subprocess.run(["node", ROOT / "tests/exports/har_validate.mjs", *files], cwd=NODE, check=True)
    assert json.loads(files[1].read_text())["log"]["entries"]


def test_bustle_counts_the_calls(tmp_path: Path) -> None:
    file = export(CAPTURES / "dbus.pcapng", "dbus", tmp_path / "a.pcap")
    done = subprocess.run(["bustle", "--count", file], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "method", "org.example.Files.Take"]


@pytest.fixture
def broker() -> object:
    """Mosquitto at a port of its own."""
    program = shutil.which("mosquitto") or str(TOOLS / "sbin/mosquitto")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([program, "-p", str(port)], stderr=subprocess.DEVNULL)
    end = time.monotonic() + soon(20)
    while time.monotonic() < end:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    yield port
    process.terminate()
    process.wait()


def test_lines_reach_a_broker(broker: int) -> None:
    """As docs/dataset.md has it; a capture's records stand for live ones."""
    wait = str(int(soon(60)))
    subscribe = ["mosquitto_sub", "-p", str(broker), "-t", "unixsock/#", "-C", "300", "-W", wait]
    with subprocess.Popen(subscribe, stdout=subprocess.PIPE) as subscriber:
        time.sleep(soon(1))
        program = (
            "import sys; from exports.fake_capture import dump; sys.exit(dump(300, ['--format', 'json']))"
        )
        environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT}/tests"}
        with subprocess.Popen(
            [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE
        ) as dump:
            publish = ["mosquitto_pub", "-p", str(broker), "-t", "unixsock/here", "-l"]
            subprocess.run(publish, stdin=dump.stdout, check=True)
        assert subscriber.stdout is not None
        lines = [json.loads(line) for line in subscriber.stdout]
    assert [one["message"] for one in lines] == list(range(300))
