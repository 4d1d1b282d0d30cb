"""Real programs that exchange messages over Unix sockets in one folder: python3 traffic.py FOLDER.

HTTP between curl and a Python server, chronyc and chronyd (datagrams), D-Bus on a
private bus, and a seqpacket conversation.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path


def main(folder: Path) -> None:
    for play in (http, seqpacket, dbus, chrony):
        play(folder)


def http(folder: Path) -> None:
    """curl asks a web server twice over one connection."""
    path = folder / "http.sock"
    server = start(sys.executable, str(Path(__file__).with_name("http_server.py")), str(path))
    appears(path)
    run("curl", "-sS", "--unix-socket", str(path), "http://demo/hello", "http://demo/again")
    stop(server)


def seqpacket(folder: Path) -> None:
    """A client and a server on a SEQPACKET socket, each a process of its own."""
    path = folder / "seqpacket.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen()
        child = os.fork()
        if child == 0:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
                client.connect(str(path))
                client.send(b"first message")
                client.send(b"second message")
                client.recv(100)
            os._exit(0)
        server, _ = listener.accept()
        with server:
            server.recv(100)
            server.recv(100)
            server.send(b"both received, boundaries kept")
            os.waitpid(child, 0)


def dbus(folder: Path) -> None:
    """dbus-send lists the names on a private bus."""
    path = folder / "bus.sock"
    address = f"unix:path={path}"
    daemon = start("dbus-daemon", "--session", "--nofork", "--nopidfile", "--address", address)
    appears(path)
    method = "org.freedesktop.DBus.ListNames"
    destination = "--dest=org.freedesktop.DBus"
    run("dbus-send", f"--bus={address}", "--print-reply", destination, "/org/freedesktop/DBus", method)
    stop(daemon)


def chrony(folder: Path) -> None:
    """chronyc asks a chronyd that follows no clock and sets none."""
    path = folder / "chrony" / "chronyd.sock"
    path.parent.mkdir(mode=0o750)
    settings = folder / "chrony.conf"
    settings.write_text(
        f"bindcmdaddress {path}\npidfile {folder}/chronyd.pid\ncmdport 0\nport 0\nlocal\nuser root\n"
    )
    daemon = start("chronyd", "-x", "-d", "-f", str(settings))
    appears(path)
    run("chronyc", "-n", "-h", str(path), "tracking")
    stop(daemon)


def start(*command: str) -> subprocess.Popen[bytes]:
    quiet = subprocess.DEVNULL
    return subprocess.Popen(find(command), stdin=quiet, stdout=quiet, stderr=quiet)


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(10)


def run(*command: str) -> None:
    done = subprocess.run(find(command), capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        sys.exit(f"{command[0]} failed with status {done.returncode}: {(done.stderr or done.stdout).strip()}")


def find(command: tuple[str, ...]) -> tuple[str, ...]:
    program = shutil.which(command[0], path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if not program:
        sys.exit(f"{command[0]} is not installed: run tests/setup")
    return (program, *command[1:])


def appears(path: Path) -> None:
    """Wait for a server's socket."""
    end = time.monotonic() + 20
    while not path.exists():
        if time.monotonic() > end:
            sys.exit(f"no process listens at {path} after 20 s")
        time.sleep(0.05)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
