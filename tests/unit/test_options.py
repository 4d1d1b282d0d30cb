"""Options: one table, one meaning, whether they come from Wireshark or from a command line."""

import pytest

from unixsock_bpf.filter import everything
from unixsock_bpf.options import OPTIONS, OptionError, scan, settings
from unixsock_bpf.record import Event, Record


def of(*argv, capture_filter=""):
    values, words = scan(argv, {option.name: not option.is_flag for option in OPTIONS})
    assert not words
    return settings(values, capture_filter)


def test_names_are_the_agreed_ones():
    names = {
        "path",
        "pid",
        "comm",
        "uid",
        "type",
        "snaplen",
        "buffer-size",
        "events",
        "process-details",
        "process-blocks",
        "include-capture-processes",
        "privilege",
    }
    assert {option.name for option in OPTIONS} == names


def test_nothing_given_is_what_wireshark_lists_as_default():
    listed = [
        word
        for option in OPTIONS
        if option.default is not None
        for word in (f"--{option.name}", str(option.default))
    ]
    assert of(*listed) == of()
    assert of().filter == everything()


@pytest.mark.parametrize(
    "argv",
    [
        *(("--path", ""), ("--path", "*"), ("--type", ""), ("--type", "any")),
        *(("--pid", ""), ("--pid", "0"), ("--comm", ""), ("--uid", "")),
        *(("--snaplen", ""), ("--buffer-size", ""), ("--privilege", "")),
    ],
)
def test_empty_values_restrict_nothing(argv):
    assert of(*argv) == of()


def test_labels_fit_in_the_dialog_as_it_opens():
    """Looked at in 4.0 to 4.6: 45 letters at the right, where the boxes to tick have theirs."""
    for option in OPTIONS:
        assert len(option.label) <= (42 if option.is_flag else 24), option.label


def test_options_are_joined_with_and():
    chosen = of("--path=/run/a b*", "--pid", "7", "--type", "stream", capture_filter="less 5 or fds")
    good = {"dst_name": b"/run/a bc", "src_pid": 7, "type": 1, "len": 5}
    assert chosen.filter.matches(Record(**good))
    for change in ({"dst_name": b"/run/a"}, {"src_pid": 8}, {"type": 2}, {"len": 6}):
        assert not chosen.filter.matches(Record(**good | change))


@pytest.mark.parametrize("name", ["/run/it's", '/run/"x"', "/run/{x}", "/run/a)b", "-x", "/run/x and fds"])
def test_values_need_no_quotes(name):
    assert of("--path", name).filter.matches(Record(dst_name=name.encode()))


def test_flags_and_numbers():
    chosen = of("--events", "--include-capture-processes", "--snaplen", "96", "--buffer-size=8")
    assert (chosen.events, chosen.include_capture_processes, chosen.snaplen, chosen.buffer_mib) == (
        True,
        True,
        96,
        8,
    )


def test_a_filter_on_events_turns_them_on():
    assert of(capture_filter="event close").events
    assert of(capture_filter="event close").filter.matches(Record(event=Event.CLOSE))


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        (("--nope", "1"), "--nope"),
        (("--pid",), "needs a value"),
        (("--pid", "x"), "--pid"),
        (("--pid", "00"), "1 to"),
        (("--type", "tcp"), "seqpacket"),
        (("--uid", "no-such-user"), "no user"),
        (("--snaplen", "-1"), "--snaplen"),
        (("--snaplen", "9" * 5000), "--snaplen"),
        (("--buffer-size", "0"), "1 to 1024"),
        (("--buffer-size", "1e3"), "1 to 1024"),
        (("--events=yes",), "no value"),
        (("--path", "/\udcff"), "UTF-8"),
        (("--path", "/" + "x" * 200), "108"),
        (("--comm", "x" * 16), "15"),
    ],
)
def test_refusals(argv, word):
    with pytest.raises(OptionError) as caught:
        of(*argv)
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bad_filter_is_refused_with_its_position():
    with pytest.raises(OptionError, match=r"Capture filter: At position 9: .*'foo'"):
        of("--pid", "3", capture_filter="path /x foo")
