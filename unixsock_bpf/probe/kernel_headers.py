"""The running kernel's structure layouts from its headers, where it has no BTF.

A C compiler is asked for each member's offset, in the way of the kernel's own build
(arch/x86/kernel/asm-offsets.c): it gets a file on stdin that includes the headers, and writes assembly to
stdout, of which the marked lines count.  Nothing of it is run or kept.  Members that a kernel does not have
are errors of that compile: they are left out, and the rest is compiled again.

The headers are those that modules are built against (``/lib/modules/RELEASE/build``) or, with
CONFIG_IKHEADERS, ``/sys/kernel/kheaders.tar.xz``.  Private headers are in neither: ``struct mount`` is
unknown here.  So are the types of functions, which is why the probe then attaches by kprobes alone.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from unixsock_bpf.errors import ProbeError
from unixsock_bpf.linux import sandbox
from unixsock_bpf.probe import cache
from unixsock_bpf.probe.btf import BtfError, Member
from unixsock_bpf.probe.compiler_process import CompilerProcess
from unixsock_bpf.timeouts import HEADERS_COMPILE_TIMEOUT_S

#: Folders of headers within a kernel's tree, as its Makefile has them (LINUXINCLUDE).
_FOLDERS = (
    *("arch/{}/include", "arch/{}/include/generated", "include"),
    *("arch/{}/include/uapi", "arch/{}/include/generated/uapi", "include/uapi", "include/generated/uapi"),
)
#: What the kernel's Makefile includes before all else.
_FIRST = ("linux/compiler-version.h", "linux/kconfig.h", "linux/compiler_types.h")
#: Where the structures are.
_HEADERS = (
    *("generated/utsrelease.h", "linux/skbuff.h", "net/sock.h", "net/af_unix.h", "net/scm.h"),
    *("net/net_namespace.h", "linux/fs.h", "linux/dcache.h", "linux/mount.h", "linux/cgroup-defs.h"),
    *("linux/kernfs.h", "linux/nsproxy.h", "linux/sched.h", "linux/pid.h", "linux/pid_namespace.h"),
    *("linux/cred.h", "linux/bvec.h", "linux/mm_types.h", "linux/bpf.h"),
)
#: The kernel's name of an architecture, and the flags without which its headers are not accepted.
_ARCHITECTURES = {
    "x86_64": ("x86", ("-m64", "-mno-mmx", "-mno-sse", "-mno-sse2", "-mcmodel=kernel")),
    "aarch64": ("arm64", ("-mgeneral-regs-only",)),
}
_FLAGS = (
    *("-D__KERNEL__", '-DKBUILD_MODNAME="unixsock"', '-DKBUILD_BASENAME="unixsock"', "-std=gnu11"),
    *("-fms-extensions", "-fshort-wchar", "-fno-PIE", "-O2", "-w", "-S", "-x", "c", "-o", "-", "-"),
)
_ALL_ERRORS = {"gcc": "-fmax-errors=0", "clang": "-ferror-limit=0"}
#: With this, members are in an order of their own that another compile would not find.
_BEFORE = """
#if defined(CONFIG_RANDSTRUCT) || defined(CONFIG_GCC_PLUGIN_RANDSTRUCT)
#error "unixsock: CONFIG_RANDSTRUCT"
#endif
#define EMIT(name, value) asm volatile("\\n->" name " %c0\\n" :: "i"(value))
const char release[] = "->release " UTS_RELEASE;
void layouts(void)
{
#line 1 "layouts"
"""
_EMITTED = re.compile(r"^->(\S+) \$?(\d+)$", re.MULTILINE)
_RELEASE = re.compile(r'"->release ([^"\\]+)')
_WRONG = re.compile(r"^layouts:(\d+):", re.MULTILINE)

_KHEADERS = Path("/sys/kernel/kheaders.tar.xz")
_KALLSYMS = Path("/proc/kallsyms")
#: Where the archive is unpacked: a folder that is everywhere.
_UNPACKED = Path("/tmp")


class KernelHeaders:
    """The running kernel's structures by its headers, and which functions it has by kallsyms.

    ``wanted``: members as ``struct.member``; ``structs``: those whose size is wanted.  Raises BtfError where
    there are no headers or no compiler, or they are of no use.
    """

    has_function_types = False

    def __init__(self, wanted: Iterable[str], structs: Iterable[str]) -> None:
        self._layouts = layouts(wanted, structs)

    def has_struct(self, name: str) -> bool:
        return name in self._layouts

    def member(self, path: str) -> Member | None:
        """Return the place of ``struct.member``, whose size is not known; None where there is none."""
        return Member(self._layouts[path], 0) if path in self._layouts else None

    def size(self, struct: str) -> int:
        """Bytes of ``struct``.  Raises BtfError if there is none."""
        if struct not in self._layouts:
            raise BtfError(f"the kernel's headers have no struct {struct}")
        return self._layouts[struct]

    @functools.cached_property
    def _symbols(self) -> bytes:
        with contextlib.suppress(OSError):  # a kernel without
            return _KALLSYMS.read_bytes()
        return b""

    def has_function(self, name: str) -> bool:
        return re.search(rb" [tTwW] %s[\n\t]" % re.escape(name.encode()), self._symbols) is not None


def tree(release: str = "", modules: str = "/lib/modules") -> list[Path]:
    """Return the folders of the running kernel's headers, that of its sources first; or none."""
    home = Path(modules) / (release or os.uname().release)
    build = home / "build"
    if not (build / "include/generated/autoconf.h").is_file():
        return []
    source = home / "source"
    folders = [source.resolve(), build.resolve()] if source.is_dir() else [build.resolve()]
    return folders if all(map(_is_ours, folders)) else []


def _is_ours(folder: Path) -> bool:
    """Return whether no other user can put another folder in its place, or write into it.

    Who built a kernel may own its headers; root does not read kernel memory at offsets of theirs.
    """
    for path in (folder, *folder.parents):
        about = path.stat()
        shared = about.st_mode & 0o022 and not about.st_mode & stat.S_ISVTX
        if about.st_uid not in (0, os.geteuid()) or shared:
            return False
    return True


def compiler() -> str:
    """Return the C compiler's name; empty if there is none."""
    return next((name for name in _ALL_ERRORS if shutil.which(name)), "")


def missing() -> str | None:
    """Return which of headers and compiler is not here, as the end of a clause; None if both are."""
    if not tree() and not _KHEADERS.exists():
        return "its headers are not installed"
    return None if compiler() else "there is no C compiler (gcc or clang)"


def layouts(wanted: Iterable[str], structs: Iterable[str]) -> dict[str, int]:
    """Return the offset of each member in ``wanted`` and the size of each struct that the kernel has.

    Raises BtfError.
    """
    text = lines(wanted, structs)
    about = os.uname()
    kept = cache.key("layouts", about.release, about.version, *text)
    found = cache.get(kept)
    if found is None:
        unpacked = not tree()
        work = functools.partial(_compiled, text, [_UNPACKED] if unpacked else tree())
        try:
            with CompilerProcess(work, _unpack if unpacked else None) as job:
                found = job.result()
        except ProbeError as error:
            raise BtfError(str(error)) from None
        cache.keep(kept, found)
    return {str(name): int(value) for name, value in found.items()}


def lines(wanted: Iterable[str], structs: Iterable[str]) -> list[str]:
    """Return C that tells offsets and sizes, one in a line."""
    members = sorted(set(wanted))
    found = []
    for path in members:
        struct, _, member = path.partition(".")
        found.append(f'EMIT("{path}", __builtin_offsetof(struct {struct}, {member}));')
    names = sorted({*structs, *(path.partition(".")[0] for path in members)})
    return found + [f'EMIT("{name}", sizeof(struct {name}));' for name in names]


def _compiled(text: list[str], folders: Sequence[Path]) -> dict[str, int]:
    """Compile now, in the compiler's process.  Raises ProbeError."""
    command = _command(folders)
    done = _run(command, text)
    wrong = {int(number) for number in _WRONG.findall(done.stderr)}
    if done.returncode and wrong:
        done = _run(command, ["" if at in wrong else line for at, line in enumerate(text, 1)])
    if done.returncode:
        raise ProbeError(f"the kernel's headers cannot be compiled: {_reason(done.stderr)}")
    release = next(iter(_RELEASE.findall(done.stdout)), "unknown")
    if release != os.uname().release:
        raise ProbeError(f"the headers are another kernel's ({release[:80]})")
    return {name: int(value) for name, value in _EMITTED.findall(done.stdout)}


def _command(folders: Sequence[Path]) -> list[str]:
    """Return the compile.  Raises ProbeError where this processor's is not known."""
    machine, name = os.uname().machine, compiler()
    if machine not in _ARCHITECTURES or not name:
        raise ProbeError(f"there is no compiler for {machine}")
    architecture, flags = _ARCHITECTURES[machine]
    include = [folder / name.format(architecture) for folder in folders for name in _FOLDERS]
    first = [
        next((path for folder in folders if (path := folder / "include" / name).is_file()), None)
        for name in _FIRST
    ]
    own = subprocess.run([name, "-print-file-name=include"], capture_output=True, text=True, check=False)
    return [
        *(name, "-nostdinc", "-isystem", own.stdout.strip()),
        *(word for path in include if path.is_dir() for word in ("-I", str(path))),
        *(word for path in first if path for word in ("-include", str(path))),
        *(_ALL_ERRORS[name], *flags, *_FLAGS),
    ]


def _run(command: list[str], text: list[str]) -> subprocess.CompletedProcess[str]:
    source = "".join(f"#include <{header}>\n" for header in _HEADERS) + _BEFORE + "\n".join(text) + "\n}\n"
    environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C"}
    try:
        return subprocess.run(
            command,
            input=source,
            capture_output=True,
            text=True,
            check=False,
            env=environment,
            timeout=HEADERS_COMPILE_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = "it does not end" if isinstance(error, subprocess.TimeoutExpired) else error
        raise ProbeError(f"the kernel's headers cannot be compiled by {command[0]}: {reason}") from None


def _reason(stderr: str) -> str:
    """Return the first error."""
    errors = [line for line in stderr.splitlines() if "error:" in line] or ["no reason given"]
    return errors[0].strip()[-300:]


def _unpack() -> None:
    """Unpack the kernel's archive into memory that only this process and its children see."""
    sandbox.mount_memory(_UNPACKED)
    with tarfile.open(_KHEADERS) as packed:
        packed.extractall(_UNPACKED)
