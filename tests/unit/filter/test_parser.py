"""What the filter language takes, what it means, and what it says of what it refuses."""

import os
import pwd
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from patience import soon

from unixsock_bpf import filter as capture_filter
from unixsock_bpf.filter import FilterError, symlinks
from unixsock_bpf.linux import cgroups
from unixsock_bpf.record import Event, Flag, Record


def message(**fields):
    return Record(type=1, flags=Flag.SRC_CREDS | Flag.DST_CREDS, **fields)


@pytest.mark.parametrize(
    ("text", "yes", "no"),
    [
        ("path /run/a", {"dst_name": b"/run/a"}, {"dst_name": b"/run/ab"}),
        ("/run/a", {"src_name": b"/run/a"}, {}),
        ("@abc", {"dst_name": b"\0abc"}, {"dst_name": b"@ab"}),
        ("path @a@b", {"dst_name": b"\0a\0b"}, {"dst_name": b"\0a"}),
        ("path /run/*/x", {"dst_name": b"/run/a/b/x"}, {"dst_name": b"/run/x"}),
        ("path *", {}, {"src_name": b"/x", "event": None}),
        ("path /a?", {"dst_name": "/aé".encode()}, {"dst_name": b"/a"}),
        ("path /[a-c]", {"dst_name": b"/b"}, {"dst_name": b"/d"}),
        ("path /[!a-c]", {"dst_name": b"/d"}, {"dst_name": b"/b"}),
        ("path '/a b'", {"dst_name": b"/a b"}, {"dst_name": b"/a"}),
        ("path '/a*'", {"dst_name": b"/a*"}, {"dst_name": b"/ab"}),
        ('path "/a"*', {"dst_name": b"/ab"}, {"dst_name": b"/b"}),
        (r"path /a\*", {"dst_name": b"/a*"}, {"dst_name": b"/ab"}),
        ("comm path", {"src_comm": b"path"}, {"src_comm": b"and"}),
        ("path x.sock", {"dst_name": b"x.sock"}, {"dst_name": b"/x.sock"}),
        ("path /w/x.sock", {"dst_name": b"x.sock", "dst_path": b"/w/x.sock"}, {"dst_name": b"x.sock"}),
        ("src pid 5", {"src_pid": 5}, {"dst_pid": 5}),
        ("dst comm a*", {"dst_comm": b"ab"}, {"src_comm": b"ab"}),
        ("uid root", {"dst_uid": 0, "src_uid": 1}, {"dst_uid": 1, "src_uid": 1}),
        ("inode 7", {"dst_inode": 7}, {"dst_inode": 8}),
        ("netns 7", {"netns": 7}, {"netns": 8}),
        ("fds", {"fds_count": 1}, {}),
        ("creds", {"creds": (1, 2, 3)}, {}),
        ("less 3", {"len": 3}, {"len": 4}),
        ("greater 3", {"len": 3}, {"len": 2}),
        ("event close", {"event": Event.CLOSE}, {}),
        ("not type dgram", {}, None),
        ("pid 1 or pid 2 and pid 3", {"src_pid": 1}, {"src_pid": 2}),
        ("(pid 1||pid 2)&&!fds", {"src_pid": 1}, {"src_pid": 1, "fds_count": 1}),
    ],
)
def test_meaning(text, yes, no):
    parsed = capture_filter.parse(text)
    assert parsed.matches(message(**yes))
    if no is not None and no.get("event", 0) is not None:
        assert not parsed.matches(message(**no))


#: Filter, the position that is blamed, and words that the sentence has to contain.
REFUSED = [
    ("foo", 1, ["'foo'", "expected"]),
    ("path /x foo", 9, ["'foo'", "'and'", "the end"]),
    ("path /x or", 11, ["ends too early", "path"]),
    ("pid", 4, ["ends too early", "a word"]),
    ("pid x", 5, ["pid", "number", "'x'"]),
    ("pid 0", 5, ["1 to 4194304"]),
    ("pid 4194305", 5, ["1 to 4194304"]),
    ("pid -1", 5, ["number"]),
    ("pid ٣", 5, ["number"]),
    ("inode 18446744073709551616", 7, ["number"]),
    ("uid no-such-user-here", 5, ["no user"]),
    ("uid 4294967295", 5, ["4294967294"]),
    ("cgroup /no-such-cgroup", 8, ["cgroup"]),
    ("type tcp", 6, ["stream, dgram, seqpacket"]),
    ("event foo", 7, ["data", "send_error"]),
    ("less 99999999999", 6, ["number"]),
    ("src path x", 5, ["'path'", "pid, comm or uid"]),
    ("(fds", 5, ["ends too early", "')'"]),
    ("fds)", 4, ["')'"]),
    ("path 'x", 6, ["quote"]),
    ('fds and path a"b', 15, ["quote"]),
    ("path a\\", 7, ["backslash"]),
    ("path ''", 6, ["name"]),
    ("path /" + "x" * 108, 6, ["108"]),
    ("comm gnome-keyring-daemon", 6, ["15"]),
    ("path [é]", 6, ["ASCII"]),
    ("fds \udcff", 5, ["0xff", "UTF-8"]),
    ("fds or \0", 8, ["NUL"]),
    ("pathx /a", 1, ["'pathx'"]),
    ("not/x", 1, ["'not/x'"]),
]


@pytest.mark.parametrize(("text", "position", "words"), REFUSED)
def test_refusals_name_position_word_and_expectation(text, position, words):
    with pytest.raises(FilterError) as caught:
        capture_filter.parse(text)
    sentence = str(caught.value)
    assert sentence.startswith(f"At position {position}: ")
    assert all(word in sentence for word in words)
    assert "\n" not in sentence


def refusal(text):
    """Return the error for ``text``; empty if it compiles."""
    try:
        assert capture_filter.parse(text).head(False)
    except FilterError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    "text",
    [
        "x" * 100_000,
        "fds or " * 15_000,
        "(" * 60_000 + "fds",
        "(" * 30_000 + "fds" + ")" * 30_000,
        "!" * 60_000 + "fds",
        "not (fds or " * 4_000 + "fds" + ")" * 4_000,
        "'" * 60_001,
        " and ".join(f"path /x{n}" for n in range(65)),
        " or ".join(f"pid {n} and pid {n + 99}" for n in range(1, 66)),
        "path [" + "a" * 60_000,
        "path " + "?" * 60_000,
        " or ".join(f"path /{'x' * 90}{n}" for n in range(500)),
    ],
    ids=lambda text: text[:12],
)
def test_size_ends_in_a_sentence_soon(text):
    started = time.process_time()
    sentence = refusal(text)
    assert len(sentence) < 300
    # Parentheses around one term are no term of their own.
    assert bool(sentence) != (text.startswith("((") and text.endswith("))"))
    assert time.process_time() - started < soon(2)


PIECES = [
    "path",
    "/x",
    "*",
    "[",
    "]",
    "!",
    "(",
    ")",
    "and",
    "or",
    "not",
    "&",
    "|",
    "pid",
    "3",
    "'",
    '"',
    "\\",
]
PIECES += ["@", "é", "\udc80", "\n", "fds", "src", "uid", "cgroup", ""]


@settings(max_examples=400)
@given(st.lists(st.sampled_from(PIECES)))
def test_any_words_give_a_filter_or_a_sentence(words):
    assert "\n" not in refusal(" ".join(words))


def test_sixty_four_terms_of_each_kind_are_possible():
    text = " and ".join(f"path */x{n}* and pid {n}" for n in range(1, 65))
    assert not refusal(text)


def test_terms_of_a_kind_that_or_joins_are_as_many_as_a_filter_may_have():
    text = " or ".join(f"path /x{n} or pid {n}" for n in range(1, 257))
    assert not refusal(text)
    assert not refusal(f"not ({text})")
    assert capture_filter.parse(text).matches(message(dst_name=b"/x256"))


@pytest.mark.parametrize(("count", "length"), [(128, 63), (64, 108)])
def test_so_many_paths_of_that_length_are_possible_and_no_longer_ones(count, length):
    def filter_of(length):
        return " or ".join(f"path /{n:03}{'x' * (length - 4)}" for n in range(count))

    assert not refusal(filter_of(length))
    if length < 108:
        assert "they need 128 places for 128 characters, and there are 64" in refusal(filter_of(length + 1))


def test_cgroup_subtree_by_record():
    mount = cgroups.mount_point()
    if mount is None:
        with pytest.raises(FilterError, match="not mounted"):
            capture_filter.parse("cgroup /")
        return
    root = capture_filter.parse("cgroup /")
    assert root.matches(message(cgroup=b"/any/where"))
    assert not root.matches(message())


def test_a_cgroup_deeper_than_the_probe_looks_is_refused(tmp_path, monkeypatch):
    deep = tmp_path.joinpath(*("x" * 16))
    deep.mkdir(parents=True)
    for folder in (deep, deep.parent):
        (folder / "cgroup.controllers").touch()
    monkeypatch.setattr("unixsock_bpf.filter.cgroups.mount_point", lambda: str(tmp_path))
    assert capture_filter.parse(f"cgroup {deep.parent}")
    with pytest.raises(FilterError, match="16 levels deep; at most 15"):
        capture_filter.parse(f"cgroup {deep}")


def test_links_lead_to_the_bound_name_and_back(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "run")
    (tmp_path / "run" / "socket").touch()
    (tmp_path / "alias").symlink_to("run/socket")
    monkeypatch.setattr(symlinks, "_LINK_DIRECTORIES", (str(tmp_path),))
    for typed, bound in (
        ("link/x", "run/x"),
        ("run/x", "link/x"),
        ("link/x*", "run/xy"),
        ("run/*", "link/y"),
        ("alias", "run/socket"),
    ):
        parsed = capture_filter.parse(f"path {tmp_path}/{typed}")
        assert parsed.matches(message(dst_name=os.fsencode(tmp_path / bound))), (typed, bound)
        assert not parsed.matches(message(dst_name=b"/elsewhere/x"))


def test_judging_sockets_before_any_message():
    Endpoint = capture_filter.Endpoint
    server, client = (
        Endpoint(name=b"/run/a", pid=3, uid=0, comm=b"s"),
        Endpoint(name=b"", pid=4, uid=1, comm=b"c"),
    )
    for text, verdict in (
        ("", True),
        ("path /run/a", True),
        ("path /run/b", False),
        ("pid 4 and type stream", True),
        ("src pid 4", None),
        ("fds", None),
        ("path /run/b and fds", False),
        ("inode 5", None),
    ):
        assert capture_filter.parse(text).judge(server, client, 1) is verdict, text


def test_events_are_asked_for_only_by_name():
    asked = {
        text: capture_filter.parse(text).asks_for_events
        for text in ("event close", "not event close", "event data", "fds")
    }
    assert asked == {"event close": True, "not event close": False, "event data": False, "fds": False}


def test_uid_names_are_those_of_the_system():
    user = pwd.getpwall()[-1]
    assert capture_filter.parse(f"uid {user.pw_name}").matches(message(src_uid=user.pw_uid))
