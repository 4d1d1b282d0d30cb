"""The Debian packages in fresh systems of three releases: apt alone installs, upgrades and removes them."""

from __future__ import annotations

import re
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
    root.run(f"dpkg --purge --force-remove-reinstreq {OURS}", check=False)


def install(root: Root, debs: str, before: str = "") -> str:
    return root.apt(f"install {debs}", before=before)


NEWER = "9.0"


def newer(root: Root, debs: str) -> str:
    """The same packages, under a newer version, and each 4 MB larger."""
    for deb in debs.split():
        root.run(
            f"rm -rf /var/tmp/deb && dpkg-deb -R {deb} /var/tmp/deb && cd /var/tmp/deb"
            f" && sed -i 's/{__version__}/{NEWER}/' DEBIAN/control"
            " && head -c 4000000 /dev/urandom >usr/share/padding-$(sed -n 's/Package: //p' DEBIAN/control)"
            " && dpkg-deb -Znone -b . /var/tmp/"
        )
    return "/var/tmp/*.deb"


def version(root: Root) -> str:
    """The version of both packages, which have to be whole."""
    packages = "dpkg-query --show --showformat '${db:Status-Status} ${Version}\\n' " + OURS
    (one,) = set(root.run(packages).splitlines())
    status, _, number = one.partition(" ")
    assert status == "installed"
    return number


def grant(root: Root) -> None:
    """Let a group of the administrator's capture."""
    root.run("groupadd --force capturers; groupadd --force others")
    root.run("unixsock install --system --group capturers")
    assert group(root) == "capturers"


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
    assert root.exists("/usr/share/zsh/vendor-completions/_unixsock")
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
    assert root.run("unixsock --version", user="daemon").strip() == f"unixsock {__version__}"
    assert "unixsock (Unix sockets)" in root.run("tshark -D", user="daemon")
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
    grant(root)
    root.run(f"dpkg-statoverride --update --add root capturers 0750 {HELPER}")
    root.apt(f"install {newer(root, debs)}")
    assert group(root) == "capturers"
    assert root.run(f"stat -c '%G %a' {HELPER}").split() == ["capturers", "750"]
    assert version(root) == NEWER
    root.run(f"dpkg-statoverride --remove {HELPER}; rm -r /var/tmp/*")


def test_without_a_debconf_frontend_nothing_is_asked_or_granted(root: Root, debs: str) -> None:
    root.apt("install sudo")
    said = install(root, debs, before="DEBIAN_FRONTEND=nonexistent")
    assert "unable to initialize frontend: Nonexistent" in said
    assert version(root) == __version__
    assert group(root) == ""


def test_a_read_only_usr(root: Root, debs: str) -> None:
    root.apt("install sudo tshark python3-bpfcc python3-lark python3-seccomp")
    before = root.listing()
    with root.read_only("/usr"):
        refused = root.attempt(f"apt-get -q -y --no-install-recommends install {debs} </dev/null")
        assert refused.returncode
        assert "Read-only file system" in refused.stdout
        said = root.attempt(f"cd {CHECKOUT} && /usr/bin/python3 -m unixsock_bpf install --system")
        assert said.returncode == 1
        assert said.stdout.startswith("unixsock: cannot write /usr/")
        assert said.stdout.endswith(": read-only file system\n")
        assert said.stdout.count("\n") == 1
    assert root.listing() == before
    root.apt("--fix-broken install", check=False)
    install(root, debs)
    grant(root)
    with root.read_only("/usr"):
        refused = root.attempt("unixsock install --system --group others")
        assert refused.returncode == 1
        assert "read-only file system" in refused.stdout
        assert refused.stdout.count("\n") == 1
        assert group(root) == "capturers"
        # A right is taken as far as that can be done.
        refused = root.attempt("unixsock install --system --no-group")
        assert refused.returncode == 1
        assert "read-only file system" in refused.stdout
        assert refused.stdout.count("\n") == 1
        assert not root.exists(RIGHTS[0])
    root.run("unixsock install --system --no-group")
    assert group(root) == ""
    assert version(root) == __version__


@pytest.mark.parametrize("state", ["half-installed", "unpacked", "half-configured"])
def test_an_interrupted_installation_is_completed(state: str, root: Root, debs: str) -> None:
    """dpkg is killed on the way, first of an installation, then of an upgrade."""
    root.apt("install sudo tshark python3-bpfcc python3-lark python3-seccomp")
    root.run("debconf-set-selections", text="unixsock unixsock/group-captures boolean true\n")
    for wanted, paths in ((__version__, debs), (NEWER, newer(root, debs))):
        killer = f"sed -n '/: {state}/q'; pkill -9 -x dpkg"
        root.attempt(f'dpkg --status-logger="{killer}" --install {paths} </dev/null')
        root.run(f"dpkg --install {paths} </dev/null")
        assert version(root) == wanted
        assert group(root) == "unixsock"
        assert root.run("dpkg --verify unixsock wireshark-unixsock; dpkg --audit") == ""
        assert root.run("unixsock --version").startswith("unixsock ")
    root.run("rm -r /var/tmp/*")


def test_a_full_disk(root: Root, debs: str) -> None:
    root.apt("install sudo")
    install(root, debs)
    grant(root)
    paths = newer(root, debs)
    with root.full_disk():
        said = root.attempt("unixsock install --system --group others")
        assert said.returncode == 1
        assert "no space left on device" in said.stdout
        assert said.stdout.count("\n") == 1
        assert group(root) == "capturers"
    with root.full_disk(left_kib=1000):
        said = root.attempt(f"dpkg --install {paths} </dev/null")
        assert said.returncode
        assert "No space left on device" in said.stdout
        assert group(root) == "capturers"
        assert root.run("unixsock --version").strip() == f"unixsock {__version__}"
    root.run(f"dpkg --install {paths} </dev/null")
    assert version(root) == NEWER
    assert group(root) == "capturers"
    root.run("rm -r /var/tmp/*")


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
    root.run(f"umask 077; {checkout} install --system --group capturers")
    assert group(root) == "capturers"
    assert "unixsock (Unix sockets)" in root.run("tshark -D", user="daemon")
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


def test_autopkgtest_runs_what_debian_tests_has(root: Root, debs: str) -> None:
    """The test of the interface; that of a capture is for a machine of its own, such as a guest."""
    root.apt("install autopkgtest")
    root.run(f"mkdir /var/tmp/tree && cp -a {CHECKOUT}/debian /var/tmp/tree/")
    said = root.attempt(f"autopkgtest {debs} /var/tmp/tree -- null")
    root.run("rm -r /var/tmp/*")
    assert re.search(r"^interface +PASS", said.stdout, re.MULTILINE), said.stdout[-6000:]
    assert re.search(r"^capture +SKIP", said.stdout, re.MULTILINE)


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
