"""Format ``hexstring``: payloads as the inside of a string literal."""

from __future__ import annotations

from unixsock_bpf.formats.text import escapes, payload_format


def hexstring(payload: bytes) -> str:
    r"""Return one line of ``\xNN``; none for an empty payload."""
    return escapes(payload) + "\n" if payload else ""


FORMAT = payload_format("hexstring", hexstring)
