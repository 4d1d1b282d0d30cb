"""The output formats of ``unixsock dump``, by name: a new one is a file with a FORMAT, and a line here."""

from __future__ import annotations

from unixsock_bpf.formats import hexdump, hexstring, json_lines, pcap, pcapng_file, string

FORMATS = {
    module.FORMAT.name: module.FORMAT
    for module in (string, hexdump, hexstring, json_lines, pcap, pcapng_file)
}
