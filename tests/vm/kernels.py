"""Stock Debian kernels with the few modules that a guest needs, in ``.cache/kernels``."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from vm.debian import CACHE, Apt, SetupError, run, say

#: Debian releases, oldest first: each has one kernel, of this series when it was last looked at.
SUITES = {"bullseye": "5.10", "bookworm": "6.1", "trixie": "6.12", "sid": "7.2"}

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


@dataclass(frozen=True)
class Kernel:
    """An unpacked kernel: ``home`` holds boot/vmlinuz-RELEASE and lib/modules/RELEASE."""

    suite: str
    release: str
    home: Path

    @property
    def image(self) -> Path:
        return self.home / "boot" / f"vmlinuz-{self.release}"

    @property
    def modules(self) -> Path:
        return self.home / "lib" / "modules" / self.release

    @property
    def version(self) -> str:
        """The series, as people say it: 6.1."""
        return ".".join(self.release.split(".")[:2])


def fetched(suite: str) -> Kernel | None:
    """``suite``'s kernel, if it is in the cache."""
    home = CACHE / "kernels" / suite
    images = sorted(home.glob("boot/vmlinuz-*"))
    return Kernel(suite, images[0].name.removeprefix("vmlinuz-"), home) if images else None


def fetch(suite: str) -> Kernel:
    """``suite``'s kernel: from the cache, else through apt.  Raises SetupError."""
    if suite not in SUITES:
        raise SetupError(f"no Debian release '{suite}' is known here: there are {', '.join(SUITES)}")
    known = fetched(suite)
    if known:
        return known
    say(f"Fetching Debian {suite}'s kernel (about 70 MB, once)")
    full = CACHE / "kernels" / f"{suite}.full"
    shutil.rmtree(full, ignore_errors=True)
    full.mkdir(parents=True)
    apt = Apt(suite)
    apt.unpack(apt.needed("linux-image-amd64", _PACKAGES), full)
    kernel = _thin_out(suite, full)
    shutil.rmtree(full)
    apt.forget()
    return kernel


def _thin_out(suite: str, full: Path) -> Kernel:
    """Move what a guest needs from the unpacked packages in ``full`` to its place in the cache."""
    # Packages of merged-/usr releases have their modules, and the newest also their kernel, under usr.
    modules = next((path for path in (full / "lib/modules", full / "usr/lib/modules") if path.is_dir()), None)
    if modules is None:
        raise SetupError(f"Debian {suite}'s kernel package holds no modules")
    (folder,) = modules.iterdir()
    release = folder.name
    image = next(iter([*full.glob("boot/vmlinuz-*"), *folder.glob("vmlinuz*")]), None)
    if image is None:
        raise SetupError(f"Debian {suite}'s kernel package holds no kernel")
    base = modules.parents[1]
    run("depmod", "-b", base, release)
    depends = dict(line.split(":", 1) for line in (folder / "modules.dep").read_text().splitlines())
    by_name = {re.sub(r"\.ko.*", "", Path(path).name).replace("-", "_"): path for path in depends}
    wanted = {by_name[name] for name in MODULES if name in by_name}
    wanted |= {path for name in wanted for path in depends[name].split()}

    making = CACHE / "kernels" / f"{suite}.part"
    shutil.rmtree(making, ignore_errors=True)
    kernel = Kernel(suite, release, making)
    for path in [*wanted, *(name for name in _LISTS if (folder / name).exists())]:
        target = kernel.modules / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / path, target)
    run("depmod", "-b", making, release)
    kernel.image.parent.mkdir()
    shutil.copy(image, kernel.image)
    home = CACHE / "kernels" / suite
    shutil.rmtree(home, ignore_errors=True)
    making.rename(home)  # only now, so that a kernel in its place is a whole one
    return Kernel(suite, release, home)
