"""Stock Debian kernels with the few modules that a guest needs, in ``.cache/kernels``."""

from __future__ import annotations

import re
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path

from vm.debian import CACHE, Apt, SetupError, run, say


@dataclass(frozen=True)
class Suite:
    """One of Debian's kernels, and how it is booted.

    ``series``: of the kernel when it was last looked at.  ``release``: of Debian.  ``flavour``: such as rt.
    ``parameters``: the kernel's, at boot.  ``cpus``: as QEMU's ``-smp`` wants them.
    """

    series: str
    release: str
    flavour: str = ""
    arch: str = "amd64"
    parameters: str = ""
    cpus: str = "2"

    @property
    def package(self) -> str:
        """What depends on the newest kernel of this kind."""
        words = (self.arch, self.flavour) if self.arch == "arm64" else (self.flavour, self.arch)
        return "-".join(filter(None, ("linux-image", *words)))

    @property
    def home(self) -> Path:
        """Its place in the cache, which it shares with those that are only booted in another way."""
        words = (self.release, self.flavour, self.arch if self.foreign else "")
        return CACHE / "kernels" / "-".join(filter(None, words))

    @property
    def foreign(self) -> bool:
        """Whether it is for other processors than amd64, which the user land has to be for, too."""
        return self.arch != "amd64"

    @property
    def user_land(self) -> str:
        """The Debian release that has its user land."""
        return "sid" if self.release == "experimental" else self.release.partition("-")[0]

    @property
    def words(self) -> str:
        """What sets it apart from a release's stock kernel, as people say it."""
        backports = self.release.partition("-")[2]
        cpus = "" if self.cpus == "2" else f"smp={self.cpus}"
        arch = self.arch if self.foreign else ""
        return " ".join(filter(None, (arch, self.flavour, backports, self.parameters, cpus)))


#: By the names that people give.  First Debian's releases, oldest first; then other processors, and other
#: kernels and boots of amd64.
SUITES = {
    "bullseye": Suite("5.10", "bullseye"),
    "bookworm": Suite("6.1", "bookworm"),
    "trixie": Suite("6.12", "trixie"),
    "sid": Suite("7.2", "sid"),
    "bookworm-arm64": Suite("6.1", "bookworm", arch="arm64"),
    "trixie-arm64": Suite("6.12", "trixie", arch="arm64"),
    "sid-arm64": Suite("7.2", "sid", arch="arm64"),
    "sid-arm64-16k": Suite("7.2", "sid", "16k", "arm64"),
    "bookworm-rt": Suite("6.1", "bookworm", "rt"),
    "trixie-rt": Suite("6.12", "trixie", "rt"),
    "bookworm-cloud": Suite("6.1", "bookworm", "cloud"),
    "trixie-cloud": Suite("6.12", "trixie", "cloud"),
    "bookworm-backports": Suite("6.12", "bookworm-backports"),
    "trixie-backports": Suite("7.1", "trixie-backports"),
    "experimental": Suite("7.3", "experimental"),
    "trixie-preempt-full": Suite("6.12", "trixie", parameters="preempt=full"),
    "trixie-preempt-none": Suite("6.12", "trixie", parameters="preempt=none"),
    "sid-preempt-full": Suite("7.2", "sid", parameters="preempt=full"),
    "sid-preempt-lazy": Suite("7.2", "sid", parameters="preempt=lazy"),
    "bookworm-unmitigated": Suite("6.1", "bookworm", parameters="mitigations=off"),
    "bookworm-jiffies": Suite("6.1", "bookworm", parameters="clocksource=jiffies"),
    "sid-lockdown": Suite("7.2", "sid", parameters="lockdown=integrity"),
    "sid-kptr": Suite("7.2", "sid", parameters="sysctl.kernel.kptr_restrict=2"),
    "bookworm-many-cpus": Suite("6.1", "bookworm", cpus="4,maxcpus=128"),
}

NEWEST = "sid"

#: Modules to keep, with all that they depend on.  What a kernel lacks or has built in is passed over.
MODULES = (
    # the guest's root and its console
    *("9p", "9pnet_virtio", "virtiofs", "virtio_pci", "virtio_mmio", "virtio_console", "virtio_blk"),
    *("overlay", "i8042", "atkbd", "virtio_rng", "virtio_net", "ext4", "loop"),
    # what the tests and the bench ask of a kernel
    *("unix", "unix_diag", "inet_diag", "tcp_diag", "af_packet", "af_packet_diag", "veth", "dummy", "ptp"),
)

#: Lists of the modules, which depmod reads.
_LISTS = ("modules.builtin", "modules.builtin.modinfo", "modules.order")

_PACKAGES = r"linux-(image|binary|modules)-\d.*"
_HEADER_PACKAGES = r"linux-headers-\d.*"
#: By Debian's name of an architecture, the kernel's; and folders of headers that no structure is in.
_HEADER_FOLDERS = {"amd64": "x86", "arm64": "arm64"}
_NOT_NEEDED = ("include/config", "include/dt-bindings", "include/sound", "include/media")


@dataclass(frozen=True)
class Kernel:
    """An unpacked kernel: ``home`` holds boot/vmlinuz-RELEASE and lib/modules/RELEASE."""

    suite: Suite
    release: str
    home: Path

    @property
    def image(self) -> Path:
        return self.home / "boot" / f"vmlinuz-{self.release}"

    @property
    def modules(self) -> Path:
        return self.home / "lib" / "modules" / self.release

    @property
    def label(self) -> str:
        """The series and what sets it apart: 6.1 arm64."""
        return f"{'.'.join(self.release.split('.')[:2])} {self.suite.words}".rstrip()


def fetched(name: str) -> Kernel | None:
    """The kernel of the suite ``name``, if it is in the cache."""
    suite = SUITES[name]
    images = sorted(suite.home.glob("boot/vmlinuz-*"))
    return Kernel(suite, images[0].name.removeprefix("vmlinuz-"), suite.home) if images else None


def fetch(name: str) -> Kernel:
    """The kernel of the suite ``name``: from the cache, else through apt.  Raises SetupError."""
    if name not in SUITES:
        raise SetupError(f"no kernel '{name}' is known here: there are {', '.join(SUITES)}")
    known = fetched(name)
    if known:
        return known
    suite = SUITES[name]
    say(f"Fetching Debian's {suite.package} of {suite.release} (about 70 MB, once)")
    full = suite.home.with_name(f"{suite.home.name}.full")
    shutil.rmtree(full, ignore_errors=True)
    full.mkdir(parents=True)
    apt = Apt(suite.release, suite.arch)
    apt.unpack(apt.needed(suite.package, _PACKAGES), full)
    kernel = _thin_out(suite, full)
    shutil.rmtree(full)
    apt.forget()
    return kernel


def headers(kernel: Kernel) -> Path:
    """Return an archive of ``kernel``'s headers, as its CONFIG_IKHEADERS makes one.  Raises SetupError.

    Fetched if need be.  An archive, because a guest opens files of this machine slowly.
    """
    archive = kernel.home.with_name(f"{kernel.release}.headers.tar.xz")
    if not archive.exists():
        package = kernel.suite.package.replace("image", "headers")
        say(f"Fetching Debian's {package} of {kernel.suite.release} (about 10 MB, once)")
        full = kernel.home.with_name(f"{kernel.home.name}.full")
        shutil.rmtree(full, ignore_errors=True)
        full.mkdir(parents=True)
        apt = Apt(kernel.suite.release, kernel.suite.arch)
        apt.unpack(apt.needed(package, _HEADER_PACKAGES), full)
        apt.forget()
        made = full / "usr/src" / f"linux-headers-{kernel.release}"
        if not made.is_dir():
            raise SetupError(f"Debian's {package} is not for Linux {kernel.release}: remove {kernel.home}")
        trees = [made, *(full / "usr/src").glob("linux-headers-*-common*")]
        making = archive.with_name(f"{archive.name}.part")
        with tarfile.open(making, "w:xz", preset=1) as packed:
            for tree in trees:
                for name in ("include", f"arch/{_HEADER_FOLDERS[kernel.suite.arch]}/include"):
                    if (tree / name).is_dir():
                        packed.add(tree / name, name, filter=_needed)
        shutil.rmtree(full)
        making.rename(archive)
    return archive


def _needed(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if member.name.startswith(_NOT_NEEDED) else member


def _thin_out(suite: Suite, full: Path) -> Kernel:
    """Move what a guest needs from the unpacked packages in ``full`` to its place in the cache."""
    # Packages of merged-/usr releases have their modules, and the newest also their kernel, under usr.
    modules = next((path for path in (full / "lib/modules", full / "usr/lib/modules") if path.is_dir()), None)
    if modules is None:
        raise SetupError(f"{suite.package} of Debian {suite.release} holds no modules")
    (folder,) = modules.iterdir()
    release = folder.name
    image = next(iter([*full.glob("boot/vmlinuz-*"), *folder.glob("vmlinuz*")]), None)
    if image is None:
        raise SetupError(f"{suite.package} of Debian {suite.release} holds no kernel")
    base = modules.parents[1]
    run("depmod", "-b", base, release)
    depends = dict(line.split(":", 1) for line in (folder / "modules.dep").read_text().splitlines())
    by_name = {re.sub(r"\.ko.*", "", Path(path).name).replace("-", "_"): path for path in depends}
    wanted = {by_name[name] for name in MODULES if name in by_name}
    wanted |= {path for name in wanted for path in depends[name].split()}

    making = suite.home.with_name(f"{suite.home.name}.part")
    shutil.rmtree(making, ignore_errors=True)
    kernel = Kernel(suite, release, making)
    for path in [*wanted, *(name for name in _LISTS if (folder / name).exists())]:
        target = kernel.modules / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / path, target)
    run("depmod", "-b", making, release)
    kernel.image.parent.mkdir()
    shutil.copy(image, kernel.image)
    shutil.rmtree(suite.home, ignore_errors=True)
    making.rename(suite.home)  # only now, so that a kernel in its place is a whole one
    return Kernel(suite, release, suite.home)
