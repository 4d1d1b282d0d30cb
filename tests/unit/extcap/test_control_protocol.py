"""The toolbar's messages: any cut of the pipe gives the same ones, bad ones are logged and survived."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unixsock_bpf.extcap.control_protocol import (
    MAX_PAYLOAD,
    QUIT,
    Command,
    ControlError,
    ControlMessage,
    Decoder,
    encode,
)

MESSAGES = st.lists(
    st.tuples(st.integers(0, 255), st.sampled_from(Command), st.text(max_size=50)), max_size=8
)


def test_known_bytes():
    assert encode(0, Command.SET, "ab") == b"T\0\0\4\0\1ab"
    assert Decoder().feed(b"T\0\0\2\0\0T\0\0\3\1\1\1") == [ControlMessage(0, 0), ControlMessage(1, 1, b"\1")]


@given(MESSAGES, st.lists(st.integers(0, 500), max_size=10))
def test_any_cut_gives_the_same_messages(sent, cuts):
    stream = b"".join(encode(*message) for message in sent)
    edges = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    decoder = Decoder()
    got = [m for low, high in zip(edges, edges[1:]) for m in decoder.feed(stream[low:high])]
    assert [(m.control, m.command, m.text) for m in got] == sent
    assert decoder.end() is None


@given(st.integers(1, 40))
def test_cut_message_is_told_at_the_end(cut):
    stream = encode(0, Command.SET, "x" * 35)
    decoder = Decoder()
    assert decoder.feed(stream[:cut]) == []
    assert isinstance(decoder.end(), ControlError)


@pytest.mark.parametrize("step", [1000, 1 << 24])
def test_oversized_message_is_skipped(step):
    stream = encode(0, Command.SET, "x" * (MAX_PAYLOAD + 1)) + encode(1, Command.SET, "\1")
    decoder = Decoder()
    got = [m for at in range(0, len(stream), step) for m in decoder.feed(stream[at : at + step])]
    assert isinstance(got[0], ControlError)
    assert got[1:] == [ControlMessage(1, Command.SET, b"\1")]
    assert decoder.end() is None


@pytest.mark.parametrize("head", [b"T\0\0\0", b"T\0\0\1\7"])
def test_too_short_length_is_skipped(head):
    got = Decoder().feed(head + encode(1, Command.SET))
    assert isinstance(got[0], ControlError)
    assert got[1:] == [ControlMessage(1, Command.SET)]


def test_what_is_no_message_ends_the_conversation_with_one_error():
    decoder = Decoder()
    assert [type(m) for m in decoder.feed(b"GET / HTTP")] == [ControlError]
    assert decoder.feed(encode(1, Command.SET)) == []


def test_a_quit_ends_the_conversation():
    decoder = Decoder()
    assert decoder.feed(encode(1, Command.SET) + b"Q") == [ControlMessage(1, Command.SET), QUIT]
    assert decoder.feed(b"\0\0\0" + encode(1, Command.SET)) == []
    assert decoder.end() is None


@given(st.binary(max_size=300))
def test_any_bytes_are_survived(data):
    for message in Decoder().feed(data):
        assert isinstance(message, (ControlMessage, ControlError))


def test_payloads_that_are_not_what_they_should_be():
    with pytest.raises(ControlError, match="UTF-8"):
        _ = ControlMessage(0, 1, b"\xff").text
    with pytest.raises(ControlError, match="0 or 1"):
        _ = ControlMessage(1, 1, b"yes").flag
    assert ControlMessage(1, 1, b"\1").flag
