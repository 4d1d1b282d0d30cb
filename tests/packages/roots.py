"""Fresh Debian systems to install packages in: a root directory for each release, copied on write."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vm.debian import CACHE, CHECKOUT, run, say, source

#: Debian release and the Wireshark in it.
SUITES = {"bookworm": "4.0", "trixie": "4.4", "sid": "4.6"}
_FOLDER = CACHE / "packages"

# What a package manager keeps account in, and what belongs to the machine and not to a package.
_ACCOUNTS = (
    "/var/lib/dpkg",
    "/var/lib/apt",
    "/var/cache",
    "/var/log",
    "/tmp",
    "/etc/ld.so.cache",
    "/var/lib/ucf",
)

# The mounts are of a process of their own and end with it.
_HOLD = """\
set -e
mount -t tmpfs tmpfs {work}
mkdir {work}/upper {work}/work {work}/root
mount -t overlay overlay -o lowerdir={base},upperdir={work}/upper,workdir={work}/work {work}/root
cd {work}/root
mkdir -p .{checkout}
mount --bind {checkout} .{checkout}
mount -o remount,bind,ro .{checkout}
mount --bind {archives} var/cache/apt/archives
mount --rbind /proc proc
mount --rbind /dev dev
mount -t tmpfs tmpfs sys
cp /etc/resolv.conf etc/ 2>/dev/null || :
printf '#!/bin/sh\\nexit 101\\n' >usr/sbin/policy-rc.d
chmod 755 usr/sbin/policy-rc.d
echo ready
read -r end || :
"""


def base(suite: str) -> Path:
    """A release's smallest system with apt, made once.  Raises SetupError."""
    folder = _FOLDER / suite
    if not folder.exists():
        say(f"Making a root directory of Debian {suite} (a minute or two, once)")
        making = folder.with_name(f"{suite}.part")
        shutil.rmtree(making, ignore_errors=True)
        making.parent.mkdir(parents=True, exist_ok=True)
        run(
            "mmdebstrap", "--quiet", "--variant=apt", '--aptopt=Acquire::Check-Valid-Until "false"',
            '--aptopt=APT::Sandbox::User "root"', "--include=ca-certificates,debian-archive-keyring",
            suite, making, source(suite),
        )  # fmt: skip
        making.rename(folder)
    return folder


class Root:
    """A running copy of a release's system, in which commands are run as root."""

    def __init__(self, suite: str, pid: int, folder: Path) -> None:
        self.suite = suite
        self.folder = folder
        self._enter = ["nsenter", f"--mount=/proc/{pid}/ns/mnt", "chroot", str(folder)]

    def run(self, command: str, *, check: bool = True, user: str | None = None, text: str = "") -> str:
        """What the shell ``command`` prints, stderr among it.

        ``check``: it must succeed; ``text``: its input.
        """
        done = self.attempt(command, user=user, text=text)
        assert not check or done.returncode == 0, f"{command}\n{done.stdout[-6000:]}"
        return done.stdout

    def attempt(
        self, command: str, *, user: str | None = None, text: str = ""
    ) -> subprocess.CompletedProcess[str]:
        who = ["su", user, "-s", "/bin/sh", "-c"] if user else ["sh", "-c"]
        environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL": "C.UTF-8",
            "HOME": "/root",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        words = [*self._enter, *who, command]
        return subprocess.run(
            words, env=environment, input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace", check=False,
        )  # fmt: skip

    def apt(self, words: str, *, check: bool = True, before: str = "") -> str:
        """Have apt do something; it asks nothing, and without a terminal debconf asks nothing either."""
        return self.run(f"{before} apt-get -q -y --no-install-recommends {words} </dev/null", check=check)

    def copy_to(self, folder: Path) -> None:
        """Copy the system as it is now, but for what is mounted in it."""
        holder = self._enter[:2]
        run(*holder, "cp", "--archive", "--one-file-system", self.folder, folder)

    @contextmanager
    def full_disk(self, left_kib: int = 0) -> Iterator[None]:
        """Leave so much space on the disk that the system's files are written to."""
        work = str(self.folder.parent)
        remount = [*self._enter[:2], "mount", "-o"]
        used = int(run(*self._enter[:2], "df", "--output=used", work).split()[1])
        run(*remount, f"remount,size={used + left_kib}k", work)
        try:
            yield
        finally:
            run(*remount, "remount,size=50%", work)

    @contextmanager
    def read_only(self, path: str) -> Iterator[None]:
        """Make a folder of the system read-only, for root too."""
        inside, there = self._enter[:2], f"{self.folder}{path}"
        run(*inside, "mount", "--bind", there, there)
        run(*inside, "mount", "-o", "remount,bind,ro", there)
        try:
            yield
        finally:
            run(*inside, "umount", there)

    def listing(self) -> set[str]:
        """Every file, folder and link, with type, mode and target, but for packages' accounts."""
        skipped = [*_ACCOUNTS, "/proc", "/dev", "/sys", str(CHECKOUT), "/root", "/run"]
        prune = " -o ".join(f"-path {path}" for path in skipped)
        return set(self.run(rf"find / \( {prune} \) -prune -o -printf '%p\t%y %m %l\n'").splitlines())

    def exists(self, path: str) -> bool:
        return self.attempt(f"test -e '{path}' -o -L '{path}'").returncode == 0


@contextmanager
def copy_of(suite: str) -> Iterator[Root]:
    """A fresh copy of a release's system, until the block ends.  Raises SetupError."""
    lower = base(suite)
    archives = _FOLDER / "archives" / suite  # downloads outlive the copy
    (archives / "partial").mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="packages-"))
    script = _HOLD.format(work=work, base=lower, checkout=CHECKOUT, archives=archives)
    holder = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdin
    assert holder.stdout
    try:
        assert holder.stdout.readline() == "ready\n"
        root = Root(suite, holder.pid, work / "root")
        root.apt("update -o APT::Sandbox::User=root -o Acquire::Check-Valid-Until=false")
        yield root
    finally:
        holder.stdin.close()
        holder.wait()
        os.rmdir(work)
