"""Units and containers in filters: which cgroups they are, and that a capture follows them."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from patience import soon

from unixsock_bpf import filter as capture_filter
from unixsock_bpf.capture.cgroup_follower import CgroupFollower
from unixsock_bpf.filter import Filter, FilterError, cgroups, encode, near
from unixsock_bpf.filter.ast import Groups, Term
from unixsock_bpf.filter.serialize import from_plain, to_plain
from unixsock_bpf.linux import containers
from unixsock_bpf.linux.cgroups import Group
from unixsock_bpf.options import Settings
from unixsock_bpf.record import Record

WEB, DB = "ab" * 32, "cd" * 32
PATHS = (
    "/",
    "/system.slice",
    "/system.slice/nginx.service",
    "/system.slice/nginx.service/worker",
    "/user.slice/user-1000.slice/user@1000.service/app.slice/nginx.service",
    f"/system.slice/docker-{WEB}.scope",
    f"/system.slice/docker-{WEB}.scope/docker/{DB}",
    "/machine.slice/machine-my\\x2dguest.scope/payload",
    "/lxc.payload.box",
)


@pytest.fixture
def present(monkeypatch: pytest.MonkeyPatch) -> dict[bytes, Group]:
    """The cgroups of the machine; each test may add and remove some."""
    found: dict[bytes, Group] = {}
    for number, path in enumerate(PATHS, 1):
        add(found, path, number)
    monkeypatch.setattr(cgroups, "groups", lambda: dict(found))
    monkeypatch.setattr(cgroups, "mount_point", lambda: "/sys/fs/cgroup")
    monkeypatch.setattr(cgroups, "_seen", {})
    monkeypatch.setattr(containers, "ids_of", lambda name: ())
    return found


def add(found: dict[bytes, Group], path: str, number: int) -> None:
    depth = path.rstrip("/").count("/")
    found[path.encode()] = Group((1, *(9999,) * (depth - 1), number)[-depth - 1 :], True)


def paths_of(text: str) -> list[str]:
    term = capture_filter.parse(text).root
    assert isinstance(term, Term)
    assert isinstance(term.value, Groups)
    return [one.path for one in term.value.groups]


def sent_from(path: str) -> Record:
    return Record(src_pid=1, cgroup=path.encode())


def test_a_unit_is_each_cgroup_of_its_name_and_all_below(present: dict[bytes, Group]) -> None:
    expected = [PATHS[2], PATHS[4]]
    assert paths_of("unit nginx") == paths_of("unit nginx.service") == expected
    assert paths_of("unit user@1000.service") == []  # its own cgroup is not listed above, only one below it
    taken = capture_filter.parse("unit nginx")
    assert [path for path in PATHS if taken.matches(sent_from(path))] == [*PATHS[2:5]]
    assert not taken.matches(Record())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"container {WEB[:12]}", [PATHS[5]]),
        (f"container {WEB}", [PATHS[5]]),
        (f"container {DB[:20]}", [PATHS[6]]),
        ("container my-guest", [PATHS[7].rpartition("/")[0]]),
        ("container box", [PATHS[8]]),
        ("container nothing", []),
    ],
)
def test_a_container_is_its_outermost_cgroup(
    text: str, expected: list[str], present: dict[bytes, Group]
) -> None:
    add(present, PATHS[7].rpartition("/")[0], 70)
    assert paths_of(text) == expected
    taken = capture_filter.parse(text)
    inside = [path for path in PATHS if taken.matches(sent_from(path))]
    assert inside == [path for path in PATHS if any((path + "/").startswith(one + "/") for one in expected)]


def test_a_unit_that_does_not_run_is_reported(present: dict[bytes, Group]) -> None:
    wanted = capture_filter.parse("unit nginx or unit late or container nothing and not unit other")
    expected = [
        "unit late.service has no processes now; they are taken once it starts",
        "container nothing has no processes now; they are taken once it starts",
    ]
    assert near.near(wanted, []) == near.nearby(wanted) == expected


def test_the_kernel_compares_with_their_ids_at_their_levels(present: dict[bytes, Group]) -> None:
    """As ``cgroup`` does, whose facts these are."""
    members = encode.Encoded(capture_filter.parse("unit nginx").root)._all_members()
    first = encode.FIRST_FACTS["cgroup"]
    assert [(value, fact - first) for value, fact, _, _ in members] == [(3, 2), (5, 5)]


def test_a_name_is_looked_up_at_the_engine(
    present: dict[bytes, Group], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containers, "ids_of", lambda name: (WEB[:12],) if name == "web" else ())
    assert paths_of("container web") == [PATHS[5]]
    assert paths_of("container db") == []


@pytest.mark.parametrize("text", ["unit ''", "unit a/b", f"container {'x' * 256}", "src container a/b"])
def test_what_is_no_name_is_refused(text: str, present: dict[bytes, Group]) -> None:
    with pytest.raises(FilterError):
        capture_filter.parse(text)


def test_without_version_2_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "mount_point", lambda: None)
    for name in ("unit", "container"):
        with pytest.raises(FilterError, match=f"{name} needs cgroup version 2"):
            capture_filter.parse(f"{name} x")


@pytest.mark.parametrize("text", ["unit nginx", f"container {WEB} or not unit x"])
def test_they_are_the_same_on_the_helpers_side(text: str, present: dict[bytes, Group]) -> None:
    here = capture_filter.parse(text)
    there = Filter("", from_plain(json.loads(json.dumps(to_plain(here.root)))))
    assert there.root == here.root


class Capture:
    """A capture whose filter can change."""

    def __init__(self, text: str) -> None:
        self.settings = Settings(filter=capture_filter.parse(text))
        self.changes = 0

    def replace(self, settings: Settings, done: Callable[[str], None]) -> None:
        self.changes += 1
        self.settings = settings
        done("")


def followed(capture: Capture) -> list[str]:
    term = capture.settings.filter.root
    assert isinstance(term, Term)
    assert isinstance(term.value, Groups)
    return [one.path for one in term.value.groups]


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + soon(5)
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_capture_follows_a_unit_that_starts_ends_and_starts_again(present: dict[bytes, Group]) -> None:
    capture = Capture("unit late")
    follower = CgroupFollower(capture)
    assert followed(capture) == []

    def holds(expected: list[str], number: int | None = None) -> bool:
        follower.look()
        term = capture.settings.filter.root
        assert isinstance(term, Term)
        assert isinstance(term.value, Groups)
        return followed(capture) == expected and number in (None, *[one.id for one in term.value.groups])

    path = "/system.slice/late.service"
    add(present, path, 50)
    until(lambda: holds([path], 50))
    del present[path.encode()]
    until(lambda: holds([]))
    add(present, path, 51)
    until(lambda: holds([path], 51))
    assert capture.changes == 3
    for _ in range(10):
        holds([path])
    assert capture.changes == 3


def test_an_engine_is_asked_again_only_where_there_is_a_new_container(
    present: dict[bytes, Group], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    known: dict[str, tuple[str, ...]] = {}
    monkeypatch.setattr(containers, "ids_of", lambda name: asked.append(name) or known.get(name, ()))
    wanted = capture_filter.parse("container web")
    wanted = wanted.renewed()
    times = len(asked)
    for _ in range(3):
        assert wanted.renewed() is wanted
    assert len(asked) == times
    known["web"] = ("ef" * 6,)
    add(present, f"/docker/{'ef' * 32}", 60)
    renewed = wanted.renewed()
    assert isinstance(renewed.root, Term)
    assert isinstance(renewed.root.value, Groups)
    assert [one.id for one in renewed.root.value.groups] == [60]


@contextmanager
def engine(path: Path, answer: bytes) -> Iterator[list[bytes]]:
    """A stand-in for Docker that gives one answer, and then goes silent."""
    requests: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        kept: list[socket.socket] = []

        def serve() -> None:
            connection = server.accept()[0]
            requests.append(connection.recv(1000))
            connection.sendall(answer)
            if answer:
                connection.close()
            kept.append(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield requests
        thread.join()
        for one in kept:
            one.close()


def test_names_come_from_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = [{"Id": WEB, "Names": ["/web", "/alias"]}, {"Id": DB, "Names": ["/db"]}]
    body = json.dumps(listed).encode()
    monkeypatch.setattr(containers, "_engines", lambda: [str(tmp_path / "none"), str(tmp_path / "engine")])
    with engine(tmp_path / "engine", b"HTTP/1.0 200 OK\r\n\r\n" + body) as requests:
        assert containers.ids_of("alias") == (WEB[:12],)
    assert requests[0].startswith(b"GET /containers/json?all=1 HTTP/1.0\r\n")


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.0 500 No\r\n\r\n{}", b"\r\n\r\n[7, {}]", b"x", b'\r\n\r\n[{"Id": 1, "Names": 2}]'],
)
def test_an_engine_that_does_not_answer_well_has_no_names(
    answer: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty answer is one that never comes."""
    monkeypatch.setattr(containers, "_engines", lambda: [str(tmp_path / "engine")])
    with engine(tmp_path / "engine", answer):
        assert containers.ids_of("web") == ()


def test_pods_are_named_by_the_kubelets_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"shop-7d9_prod_web-server-{WEB}.log").touch()
    (tmp_path / f"noise_prod_x-{DB[:60]}.log").touch()
    monkeypatch.setattr(containers, "_LINKS", str(tmp_path))
    monkeypatch.setattr(containers, "_engines", list)
    assert containers.ids_of("shop-7d9") == containers.ids_of("web-server") == (WEB[:12],)
    assert containers.ids_of("noise") == ()
