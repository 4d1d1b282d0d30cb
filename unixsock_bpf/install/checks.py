"""Check what a capture needs on this machine, and name the remedy for what is missing."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from unixsock_bpf import dependencies
from unixsock_bpf.probe import bcc_package, refusals
from unixsock_bpf.timeouts import CHECK_TIMEOUT_S
from unixsock_bpf.version import __version__

#: Remedy where root sees no addresses.
_HIDDEN = "set kernel.kptr_restrict to 1 or 0 and run as root"


#: What puts Wireshark into a sandbox, and where it is then.
_SANDBOXED = (
    ("Flatpak", "/var/lib/flatpak/app/org.wireshark.Wireshark"),
    ("Flatpak", "~/.local/share/flatpak/app/org.wireshark.Wireshark"),
    ("Snap", "/snap/wireshark"),
    ("Snap", "/var/lib/snapd/snap/wireshark"),
)


@dataclass(frozen=True)
class Check:
    """One requirement: whether it is met, what was found, and the remedy if it isn't.

    Where ``needed`` is false a capture works without it, if only with ``unixsock dump``.
    """

    name: str
    met: bool
    found: str
    remedy: str = ""
    needed: bool = True


def checks() -> Iterator[Check]:
    """Yield each check in turn; the slower ones (loading a probe, asking Wireshark) last."""
    basic = [machine(), root(), btf(), kprobes(), bcc(), libraries(), lockdown(), kallsyms()]
    yield from basic
    if all(check.met for check in basic if check.needed):
        yield from tracing()
    else:
        yield Check("tracing", False, "not tried, because of what is missing above")
    yield wireshark()
    yield from sandboxed()
    yield extcap()
    yield dissector()
    yield from shadowed()


def machine() -> Check:
    """Check for a processor that the probe knows."""
    return _need("processor", refusals.machine_refused(), os.uname().machine)


def root() -> Check:
    """Check for the right to load programs into the kernel: as root, or through the privileged helper."""
    uid = os.geteuid()
    if uid == 0:
        return _need("privilege", refusals.user_namespace_refused(), "root")
    refusal = _refusal()
    if refusal is None:
        return Check("privilege", True, f"user {uid} may have the privileged helper capture")
    return Check("privilege", False, refusal, "Or run it with sudo")


def _need(name: str, refused: str | None, found: str) -> Check:
    """Return the check of what ``refused`` says is missing, with its remedy; with ``found`` if nothing is."""
    if refused is None:
        return Check(name, True, found)
    missing, _, remedy = refused.rstrip(".").rpartition(": ")
    return Check(name, False, missing, remedy[:1].upper() + remedy[1:])


def _refusal() -> str | None:
    """Return why the privileged helper would not start for this user; None if it would."""
    from unixsock_bpf.errors import ProbeError
    from unixsock_bpf.options import Settings
    from unixsock_bpf.privilege.client import RemoteCapture

    try:
        RemoteCapture(Settings()).try_to_start()
    except ProbeError as error:
        return _sentence(error)
    return None


def btf() -> Check:
    """Check for the running kernel's type information, or its headers, which tell layouts, too."""
    there = os.access(refusals.VMLINUX_BTF, os.R_OK)
    found = refusals.VMLINUX_BTF if there else "none; layouts come from the kernel's headers"
    return _need("BTF", refusals.types_refused(), found)


def kprobes() -> Check:
    """Check that functions of the kernel can be hooked."""
    return _need("kprobes", refusals.kprobes_refused(), "in this kernel")


def bcc() -> Check:
    """Check for bcc, the compiler and loader."""
    try:
        version = bcc_package.load().__version__
    except Exception as error:
        return Check(
            "bcc",
            False,
            f"the Python package bcc cannot be imported ({error})",
            dependencies.remedies(["bcc"]),
        )
    return Check("bcc", True, f"version {version}")


def libraries(packages: Sequence[str] = dependencies.PACKAGES) -> Check:
    """Check for the Python packages that the filter language needs."""
    missing = [name for name in packages if find_spec(name) is None]
    return Check(
        "Python packages",
        not missing,
        f"{' and '.join(missing)} cannot be imported" if missing else ", ".join(packages),
        dependencies.remedies(missing),
    )


def lockdown(path: str = "/sys/kernel/security/lockdown") -> Check:
    """Check that kernel lockdown permits tracing."""
    try:
        modes = Path(path).read_text()
    except OSError:
        return Check("lockdown", True, "not in this kernel")
    mode = modes.partition("[")[2].partition("]")[0] or modes.strip()
    return _need("lockdown", refusals.lockdown_refused(path), mode)


def kallsyms(
    path: str = "/proc/kallsyms",
    restriction: str = "/proc/sys/kernel/kptr_restrict",
    kcore: str = "/proc/kcore",
) -> Check:
    """Check that the probe can find pages, which hold the fragments of long messages.

    kcore or kallsyms will do; for an unprivileged user the privileged helper reads them.
    """
    from unixsock_bpf.probe.page_bases import BASES, addresses

    if _tells_where_pages_are(kcore):
        return Check("kallsyms", True, f"not needed: {kcore} says where pages are", needed=False)
    found = addresses(BASES, path)
    missing = [name for name in BASES if name not in found]
    if missing:
        wanted = "use a kernel with CONFIG_PROC_KCORE"
        if os.uname().machine == "x86_64":  # others have no such variables
            wanted += " or CONFIG_KALLSYMS_ALL"
        return _pages_unknown(f"{path} has no {missing[0]}", wanted)
    if os.geteuid() != 0:  # others see the names, and zeros
        with contextlib.suppress(OSError):
            if Path(restriction).read_text().strip() in ("0", "1"):
                return Check("kallsyms", True, "addresses are shown to root", needed=False)
        return _pages_unknown("addresses are hidden from root", _HIDDEN)
    if not all(found.values()):
        return _pages_unknown("all addresses are zero", _HIDDEN)
    return Check("kallsyms", True, "addresses are shown", needed=False)


def _pages_unknown(found: str, remedy: str) -> Check:
    return Check("kallsyms", False, found, f"Long messages are cut without it; {remedy}", needed=False)


def _tells_where_pages_are(kcore: str) -> bool:
    if os.geteuid() != 0:  # as root will find it
        return Path(kcore).exists()
    from unixsock_bpf.probe import kernel, offsets
    from unixsock_bpf.probe.btf import BtfError
    from unixsock_bpf.probe.page_bases import page_bases

    try:
        return bool(page_bases(offsets.macros(kernel.types())["STRUCT_PAGE_SIZE"], kcore))
    except (BtfError, OSError):
        return False


def tracing() -> Iterator[Check]:
    """Check that the probe can be loaded and attached, sees what it sends itself, and can be detached."""
    from unixsock_bpf.capture.session import Capture
    from unixsock_bpf.errors import ProbeError
    from unixsock_bpf.options import Settings
    from unixsock_bpf.privilege.client import source

    try:
        with source(Settings(buffer_mib=1)) as capture:
            attached, proofs, unattached = capture.attached, capture.proofs, capture.unattached
            # A privileged helper keeps that of an unprivileged user's capture to itself.
            memory = (
                f", in {capture.memory / 2**20:.0f} MiB of memory besides its buffer"
                if isinstance(capture, Capture)
                else ""
            )
    except ProbeError as error:
        yield Check("tracing", False, _sentence(error), _tracing_remedy(_sentence(error)))
        return
    yield Check("tracing", True, f"the probe loads ({attached}{memory})")
    for way in proofs:
        yield Check("self-test", True, f"{way}: captured")
    for sentence in unattached:
        yield Check("hook", False, sentence.rstrip("."), needed=False)


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")


def _tracing_remedy(found: str) -> str:
    """Return the remedy, unless the error ends with one."""
    try:
        modules = Path("/sys/kernel/security/lsm").read_text().strip().split(",")
    except OSError:
        modules = []
    if "bpf" in modules:
        return "A BPF security module is active and may forbid it: ask this machine's administrator"
    return "" if ". " in found else "Capture on a machine or in a guest whose kernel permits tracing"


def wireshark() -> Check:
    """Check for Wireshark or tshark, with Lua."""
    programs = [program for program in ("wireshark", "tshark") if shutil.which(program)]
    if not programs:
        return Check(
            "Wireshark",
            False,
            "neither wireshark nor tshark was found",
            dependencies.remedies(["tshark"]),
            False,
        )
    output = _answer(["tshark", "--version"]) if "tshark" in programs else ""
    version = output.splitlines()[0].rstrip(".") if output else ", ".join(programs)
    if " without Lua" in " ".join(output.split()):  # lines are broken anywhere
        found = f"{version} was built without Lua and shows no more than bytes"
        return Check(
            "Wireshark", False, found, "Install a Wireshark with Lua, as distributions have it", False
        )
    return Check("Wireshark", True, version, needed=False)


def sandboxed(places: Sequence[tuple[str, str]] = _SANDBOXED) -> Iterator[Check]:
    """Check for Wiresharks in a sandbox, which run no extcap of the system's."""
    for kind, place in places:
        if Path(place).expanduser().exists():
            yield Check(
                "Wireshark",
                False,
                f"the {kind} in {place} runs in a sandbox and sees no interface of this system's",
                f"Start the distribution's Wireshark; {dependencies.how_to_install('wireshark')}",
                False,
            )


def shadowed() -> Iterator[Check]:
    """Check which of several installations is used: the extcap by Wireshark, the command by the shell."""
    from unixsock_bpf.wireshark.folders import extcap_folders

    extcaps = [folder / "unixsock" for folder in extcap_folders()]
    found = list({path.resolve(): path for path in reversed(extcaps) if path.exists()}.items())[::-1]
    if len(found) > 1:
        (_, first), *others = found
        yield Check(
            "installations",
            False,
            f"Wireshark uses {first} and leaves out {', '.join(str(path) for _, path in others)}",
            "Keep one: see 'unixsock uninstall --help', or remove the package",
            False,
        )
    commands = [Path(folder) / "unixsock" for folder in os.environ.get("PATH", "").split(":") if folder]
    commands = [path for path in commands if os.access(path, os.X_OK) and path.is_file()]
    real = list({path.resolve(): path for path in reversed(commands)}.values())[::-1]
    if len(real) > 1:
        yield Check(
            "installations",
            False,
            f"the command is {real[0]}, which comes before {', '.join(map(str, real[1:]))} in PATH",
            "Keep one",
            False,
        )


def extcap() -> Check:
    """Check that the extcap of this version is where Wireshark looks for it."""
    from unixsock_bpf.wireshark.folders import extcap_folders

    installed = [folder / "unixsock" for folder in extcap_folders() if (folder / "unixsock").exists()]
    if not installed:
        return _not_installed("extcap")
    for path in installed:
        output = _answer([str(path), "--extcap-interfaces", "--extcap-version=4.0"])
        version = output.partition("{version=")[2].partition("}")[0]
        if version != __version__:
            return Check(
                "extcap",
                False,
                f"{path} is of version {version or 'unknown'}, this is {__version__}",
                "Run 'unixsock install' again",
                False,
            )
    return Check("extcap", True, ", ".join(map(str, installed)), needed=False)


def dissector() -> Check:
    """Check that this package's dissector is where Wireshark looks for it."""
    from unixsock_bpf.wireshark import folders
    from unixsock_bpf.wireshark.tshark import leaves_out_personal_lua

    installed = [
        folder / "unixsock.lua" for folder in folders.plugin_folders() if (folder / "unixsock.lua").exists()
    ]
    if not installed:
        return _not_installed("dissector")
    try:
        others = folders.other_versions()
    except folders.FoldersError as error:
        return Check("dissector", False, str(error), "Install this package again", False)
    except OSError as error:
        remedy = "Make it readable, or run 'unixsock install' again"
        return Check("dissector", False, f"{error.filename} cannot be read ({error.strerror})", remedy, False)
    personal = folders.personal().plugins / "unixsock.lua"
    if installed == [personal] and leaves_out_personal_lua():
        found = f"Wireshark 4.4 and later, run by root, do not load {personal}"
        return Check("dissector", False, found, "Run 'unixsock install --system'", False)
    if others:
        found = f"{others[0]} is not of this version ({__version__})"
        return Check("dissector", False, found, "Run 'unixsock install' again", False)
    return Check("dissector", True, ", ".join(map(str, installed)), needed=False)


def _not_installed(what: str) -> Check:
    return Check(what, False, "not installed for Wireshark", "Run 'unixsock install'", False)


def _answer(command: list[str]) -> str:
    """Return what a program prints; an empty text if it fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=CHECK_TIMEOUT_S, check=False, text=True, errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout
