"""The formats of ``unixsock export``, by name: a new one is a file with a FORMAT, and a line here."""

from __future__ import annotations

from unixsock_bpf.export import dbus, dot, fixtures, har, parquet, raw, sequence, tcp, umockdev

FORMATS = {
    form.name: form
    for form in (
        *fixtures.FORMATS,
        tcp.FORMAT,
        dbus.FORMAT,
        har.FORMAT,
        *sequence.FORMATS,
        dot.FORMAT,
        raw.FORMAT,
        umockdev.FORMAT,
        parquet.FORMAT,
    )
}
