"""Format ``string``: payloads as text."""

from __future__ import annotations

from unixsock_bpf.formats.text import harmless, payload_format


def string(payload: bytes) -> str:
    """Return text as it is and everything else escaped, ending in a line feed."""
    text = harmless(payload, keep="\n\t")
    return text if not text or text.endswith("\n") else text + "\n"


FORMAT = payload_format("string", string)
