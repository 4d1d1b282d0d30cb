"""The Debian packages in fresh systems of three releases: apt alone installs, upgrades and removes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from vm.debian import CHECKOUT

from packages.roots import SUITES, Root, copy_of
from unixsock_bpf import record
from unixsock_bpf.formats import pcapng
from unixsock_bpf.record import Record
from unixsock_bpf.version import __version__

OURS = "unixsock wireshark-unixsock"
HELPER = "/usr/lib/unixsock/libexec/unixsock-capture"
RIGHTS = (
    "/etc/sudoers.d/unixsock",
    "/usr/share/polkit-1/rules.d/50-unixsock.rules",
    "/usr/lib/unixsock/group",
)
EXTCAPS = ("/usr/lib/x86_64-linux-gnu/wireshark/extcap/unixsock", "/usr/libexec/wireshark/extcap/unixsock")


@pytest.fixture(scope="module", params=SUITES)
def root(request: pytest.FixtureRequest, debs: str) -> Iterator[Root]:
    """A system in which tests take turns.  Each leaves the packages purged."""
    with copy_of(request.param) as one:
        yield one


@pytest.fixture(autouse=True)
def _purged(root: Root) -> Iterator[None]:
    yield
    root.apt(f"purge {OURS}", check=False)


def install(root: Root, debs: str, before: str = "") -> str:
    return root.apt(f"install {debs}", before=before)


def group(root: Root) -> str:
    """The group that may capture, as all files say it; empty if none may."""
    there = [path for path in RIGHTS if root.exists(path)]
    if not there:
        return ""
    name = root.run(f"cat {RIGHTS[2]}").strip()
    assert {RIGHTS[0], RIGHTS[2]} <= set(there)
    if RIGHTS[1] in there:  # where there is a folder for polkit's
        assert f'isInGroup("{name}")' in root.run(f"cat {RIGHTS[1]}")
    assert f"%{name} ALL=" in root.run(f"cat {RIGHTS[0]}")
    assert root.run(f"stat -c %a {RIGHTS[0]} {RIGHTS[2]}").split() == ["440", "644"]
    root.run("visudo --check --quiet")
    assert root.run(f"getent group {name}")
    return name


def test_apt_alone_installs_and_purges_without_trace(root: Root, debs: str, tmp_path: Path) -> None:
    first = root.listing()
    install(root, debs)
    root.run("useradd --create-home somebody")
    for user in ("somebody", None):
        listed = [line for line in root.run("tshark -D", user=user).splitlines() if "unixsock (" in line]
        assert [line.partition(". ")[2] for line in listed] == ["unixsock (Unix sockets)"]
    blocks = [pcapng.section_header("", "", ""), pcapng.interface("unixsock", "", 0)]
    one = Record(dst_name=b"/run/x", type=1, len=3, payload=b"abc")
    (CHECKOUT / "dist/a.pcapng").write_bytes(b"".join([*blocks, pcapng.packet(1, record.encode(one))]))
    command = f"tshark -C 'Unix sockets' -r {CHECKOUT}/dist/a.pcapng"
    assert root.run(f"{command} -T fields -e unixsock.path", user="somebody") == "/run/x\n"
    assert "Path" in root.run(f"{command} -T psml", user="somebody")
    checked = root.attempt("unixsock check").stdout
    assert "ok      extcap: " in checked
    assert "ok      dissector: " in checked
    assert root.run("unixsock --version").strip() == f"unixsock {__version__}"
    assert root.exists("/usr/share/man/man1/unixsock.1.gz")
    assert root.run("bash -c '. /usr/share/bash-completion/completions/unixsock; complete -p unixsock'")
    assert group(root) == ""
    root.run("userdel --remove somebody")
    root.apt(f"purge {OURS}")
    second = root.listing()
    assert not [line for line in second if "unixsock" in line and not line.startswith(str(CHECKOUT))]
    install(root, debs)
    root.apt(f"purge {OURS}")
    assert root.listing() == second
    packaged = set(root.run("cat /var/lib/dpkg/info/*.list").splitlines())
    left = {line.split("\t")[0] for line in second - first} - packaged
    # The scripts of what we depend on leave files; where ours are is nothing of the kind.
    ours = ("wireshark", "polkit", "sudoers", "completions", "lib/unixsock", "share/unixsock")
    assert not [path for path in left if any(word in path for word in ours)]


def test_the_right_is_asked_for_kept_and_taken(root: Root, debs: str) -> None:
    root.apt("install sudo")
    root.run("debconf-set-selections", text="unixsock unixsock/group-captures boolean true\n")
    install(root, debs, before="umask 077;")
    assert group(root) == "unixsock"
    root.run("groupadd capturers")
    assert "group unixsock may not capture any more" in root.run(
        "unixsock install --system --group capturers"
    )
    assert group(root) == "capturers"
    root.apt(f"install --reinstall {debs}")
    assert group(root) == "capturers"
    root.apt(f"remove {OURS}")
    assert group(root) == ""
    install(root, debs)
    assert group(root) == "capturers"
    root.run("unixsock install --system --no-group")
    root.run("dpkg-reconfigure -f noninteractive unixsock")
    assert group(root) == ""
    root.run("debconf-set-selections", text="unixsock unixsock/group-captures boolean true\n")
    root.run("dpkg-reconfigure -f noninteractive unixsock")
    assert group(root) == "unixsock"
    root.apt(f"purge {OURS}")
    assert group(root) == ""
    assert not root.attempt("getent group unixsock").stdout
    install(root, debs)
    assert group(root) == ""  # the answer went, too


def test_a_newer_version_keeps_settings_and_overrides(root: Root, debs: str) -> None:
    root.apt("install sudo")
    install(root, debs)
    root.run("groupadd --force capturers; unixsock install --system --group capturers")
    root.run(f"dpkg-statoverride --update --add root capturers 0750 {HELPER}")
    newer = "9.0"
    for deb in debs.split():
        root.run(
            f"rm -rf /var/tmp/deb && dpkg-deb -R {deb} /var/tmp/deb && cd /var/tmp/deb"
            f" && sed -i 's/{__version__}/{newer}/' DEBIAN/control && dpkg-deb -b . /var/tmp/"
        )
    root.apt("install /var/tmp/*.deb")
    assert group(root) == "capturers"
    assert root.run(f"stat -c '%G %a' {HELPER}").split() == ["capturers", "750"]
    assert newer in root.run("dpkg-query -W unixsock")
    root.run(f"dpkg-statoverride --remove {HELPER}; rm -r /var/tmp/*")


@pytest.mark.parametrize("path", [EXTCAPS[1], "/usr/bin/unixsock"])
def test_a_foreign_file_in_the_way_stays(path: str, root: Root, debs: str) -> None:
    root.run(f"mkdir -p $(dirname {path}); echo mine >{path}")
    said = root.attempt(f"apt-get -q -y --no-install-recommends install {debs} </dev/null")
    assert said.returncode
    assert f"unixsock: {path} is in the way, and no package put it there: remove it first" in said.stdout
    assert root.run(f"cat {path}") == "mine\n"
    root.run(f"rm {path}")
    root.apt("--fix-broken install", check=False)


def test_a_checkouts_installation_is_replaced(root: Root, debs: str) -> None:
    """Also one by version 0.1.0, whose files lie in the same places."""
    root.apt("install sudo tshark python3-bpfcc python3-lark python3-seccomp")
    root.run("groupadd --force capturers")
    checkout = f"cd {CHECKOUT} && /usr/bin/python3 -m unixsock_bpf"
    root.run(f"{checkout} install --system --group capturers")
    assert group(root) == "capturers"
    install(root, debs)
    assert group(root) == "capturers"
    assert root.run("command -v unixsock").strip() == "/usr/bin/unixsock"
    assert root.run("tshark -D").count("unixsock (") == 1
    assert root.run("dpkg --verify unixsock wireshark-unixsock") == ""
    for command, words in (
        (f"{checkout} install --system", "belongs to the Debian package unixsock: remove that first"),
        ("unixsock install", "this is the Debian package unixsock"),
        ("unixsock uninstall --system", "remove it with 'sudo apt purge unixsock wireshark-unixsock'"),
    ):
        said = root.attempt(command)
        assert said.returncode == 1
        assert words in said.stdout
        assert said.stdout.count("\n") == 1
    assert root.run("dpkg --verify unixsock wireshark-unixsock") == ""


def test_side_by_side_with_a_users_own(root: Root, debs: str) -> None:
    """A checkout for a user, and the package for everybody: the interface is listed once."""
    install(root, debs)
    root.run("useradd --create-home somebody")
    said = root.run(f"cd {CHECKOUT} && /usr/bin/python3 -m unixsock_bpf install --user", user="somebody")
    assert "interface: /home/somebody/" in said
    assert root.run("tshark -D", user="somebody").count("unixsock (") == 1
    root.run(f"cd {CHECKOUT} && /usr/bin/python3 -m unixsock_bpf uninstall --user", user="somebody")
    assert root.run("tshark -D", user="somebody").count("unixsock (") == 1
    assert root.run("find /home/somebody -name '*unixsock*'") == ""
    root.run("userdel --remove somebody")
