"""Format ``hex``: payloads as a hex dump."""

from __future__ import annotations

from unixsock_bpf.formats.text import payload_format


def hexdump(payload: bytes) -> str:
    """Return lines of offset, sixteen bytes and their ASCII, as text2pcap reads them."""
    lines = []
    for at in range(0, len(payload), 16):
        row = payload[at : at + 16]
        digits = (
            " ".join(f"{byte:02x}" for byte in row[:8]) + "  " + " ".join(f"{byte:02x}" for byte in row[8:])
        )
        shown = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        lines.append(f"{at:08x}  {digits:<48}  |{shown}|\n")
    return "".join(lines)


FORMAT = payload_format("hex", hexdump)
