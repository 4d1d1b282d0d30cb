"""Names of containers and pods: from Docker's or Podman's socket, or from the links that Kubernetes keeps."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import suppress

from unixsock_bpf.timeouts import CONTAINER_ENGINE_TIMEOUT_S

#: Digits of an id that records and filters have.
ID_DIGITS = 12
#: Bytes of an answer: some thousand containers.
_MOST = 8 << 20
_ID = re.compile(r"[0-9a-f]{64}")
#: The kubelet's links: POD_NAMESPACE_CONTAINER-ID.log
_LINKS = "/var/log/containers"
_LINK = re.compile(r"([^_]+)_[^_]+_(.+)-([0-9a-f]{64})\.log")


def ids_of(name: str) -> tuple[str, ...]:
    """Return 12 digits of the ids of the containers that have this name, or whose pod has it.

    Takes no longer than CONTAINER_ENGINE_TIMEOUT_S; an engine that does not answer, or that this user may not
    ask, has none.
    """
    deadline = time.monotonic() + CONTAINER_ENGINE_TIMEOUT_S
    found = dict.fromkeys(one[:ID_DIGITS] for one, names in _known(deadline) if name in names)
    return tuple(found)[:32]


def _known(deadline: float) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield id and names of each container."""
    with suppress(OSError):
        for entry in os.listdir(_LINKS):
            if link := _LINK.fullmatch(entry):
                yield link[3], (link[1], link[2])
    for path in _engines():
        with suppress(OSError, ValueError):
            yield from _listed(path, deadline)


def _engines() -> list[str]:
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    own = [f"{runtime}/podman/podman.sock"] if runtime else []
    return ["/run/docker.sock", "/run/podman/podman.sock", *own]


def _listed(path: str, deadline: float) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield id and names from the engine at ``path``.  Raises OSError, ValueError."""
    answer = b""
    with socket.socket(socket.AF_UNIX) as engine:
        # With HTTP/1.0 the answer ends with the connection, and comes in one piece.
        _wait(engine, deadline)
        engine.connect(path)
        engine.sendall(b"GET /containers/json?all=1 HTTP/1.0\r\nHost: localhost\r\n\r\n")
        while part := _received(engine, deadline):
            answer += part
            if len(answer) > _MOST:
                raise ValueError("the answer is too long")
    listed = json.loads(answer.partition(b"\r\n\r\n")[2])
    for one in listed if isinstance(listed, list) else ():
        number, names = (one.get("Id"), one.get("Names")) if isinstance(one, dict) else (None, None)
        if isinstance(number, str) and _ID.fullmatch(number) and isinstance(names, list):
            yield number, tuple(name.lstrip("/") for name in names if isinstance(name, str))


def _received(engine: socket.socket, deadline: float) -> bytes:
    _wait(engine, deadline)
    return engine.recv(1 << 16)


def _wait(engine: socket.socket, deadline: float) -> None:
    """Have the next call wait until ``deadline`` at most.  Raises TimeoutError."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    engine.settimeout(left)
