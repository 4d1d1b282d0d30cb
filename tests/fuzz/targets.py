"""What is fuzzed: each target takes any bytes and either handles or refuses them as documented.

Everything else that is raised is a finding.  Refusals are printable, because people read them.
"""

from __future__ import annotations

import contextlib
import json

from unixsock_bpf import record
from unixsock_bpf.capture.feedback import Feedback
from unixsock_bpf.extcap.control_protocol import ControlError, Decoder
from unixsock_bpf.filter import FilterError, parse
from unixsock_bpf.formats import pcap, pcapng
from unixsock_bpf.formats.base import Options
from unixsock_bpf.formats.registry import FORMATS
from unixsock_bpf.linux import sock_diag
from unixsock_bpf.privilege import protocol
from unixsock_bpf.privilege.protocol import Reports
from unixsock_bpf.version import __version__


def printable(error: Exception) -> None:
    """A refusal is one line that a terminal only shows."""
    assert str(error).isprintable(), str(error)


def position_within(position: int | None, text: str) -> None:
    """A mark below a filter can be drawn."""
    assert position is None or 1 <= position <= len(text) + 1


def record_target(data: bytes) -> None:
    """A record in each format, and as something that may repeat the output."""
    try:
        record.decode(data)
    except record.RecordError as error:
        printable(error)
        return
    block = pcapng.packet(1_700_000_000_123_456_789, data)
    for form in FORMATS.values():
        pieces = form.writer(Options()).pieces([block])
        if form.name == "json":
            json.loads(b"".join(map(bytes, pieces)))
    feedback = Feedback(set)
    for _ in range(2):
        feedback.kept([block])


def pcapng_target(data: bytes) -> None:
    """A pcapng file, whole and in pieces."""
    try:
        for number, packet in pcapng.frames(data):
            assert number > 0
            assert packet is None or packet.time_ns >= 0
    except pcapng.PcapngError as error:
        printable(error)
    with contextlib.suppress(pcapng.PcapngError):
        splitter = pcapng.Splitter()
        for at in range(0, len(data), 7):
            splitter.feed(data[at : at + 7])


def pcap_target(data: bytes) -> None:
    """A classic pcap file."""
    if data[:4] in pcap.UNITS_NS:
        try:
            list(pcap.frames(data))
        except pcap.PcapError as error:
            printable(error)


def filter_target(data: bytes) -> None:
    """A capture filter, and the same as the privileged helper gets it."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        parsed = parse(text)
    except FilterError as error:
        printable(error)
        position_within(error.position, text)
        return
    request_target(json.dumps({"filter": protocol.to_plain(parsed.root)}).encode())


#: A request with all members, which the fuzzer's replace.
_REQUEST = json.loads(protocol.encode_request(protocol.Request(protocol.Settings()))[protocol.HEAD :])


def request_target(data: bytes) -> None:
    """A request to the privileged helper: as it is, and as the members of a whole one."""
    candidates = [data]
    with contextlib.suppress(ValueError, RecursionError):
        members = json.loads(data)
        if isinstance(members, dict):
            candidates.append(json.dumps(_REQUEST | members | {"version": __version__}).encode())
    for body in candidates:
        try:
            protocol.decode_request(body)
        except protocol.RequestError as error:
            printable(error)


def kernel_target(data: bytes) -> None:
    """The kernel's list of sockets, cut anywhere."""
    with contextlib.suppress(sock_diag.DiagError):
        sock_diag.entries(data)


def pipes_target(data: bytes) -> None:
    """What Wireshark says on its control pipe, and the privileged helper on stderr."""
    decoder, reports = Decoder(), Reports()
    for at in range(0, len(data), 5):
        for message in decoder.feed(data[at : at + 5]):
            if isinstance(message, ControlError):
                printable(message)
        reports.feed(data[at : at + 5])
    decoder.end()


TARGETS = {
    "record": record_target,
    "pcapng": pcapng_target,
    "pcap": pcap_target,
    "filter": filter_target,
    "request": request_target,
    "kernel": kernel_target,
    "pipes": pipes_target,
}
