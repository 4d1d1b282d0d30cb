"""Putting the interface, the dissector and a profile where Wireshark finds them, and taking them away.

Everything is copied into one folder, the library; Wireshark's folders get links into it, so
that each file finds its siblings, and Wireshark's search for plugins finds none but the main
one.  A manifest in the library lists every file with its hash: only those are ever removed,
and only while they are as they were put there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from unixsock_bpf.errors import UnixsockError
from unixsock_bpf.install import profile
from unixsock_bpf.privilege import policy
from unixsock_bpf.privilege.launch import GROUP, HELPER, LIBRARY
from unixsock_bpf.probe import cache as programs
from unixsock_bpf.version import __version__
from unixsock_bpf.wireshark import folders

#: The command, where it is for everybody.
COMMAND = Path("/usr/local/bin/unixsock")

#: The extcap where the package came without one (from a wheel).
_EXTCAP = """\
#!{python}
import sys

sys.path.insert(0, {root!r})

from unixsock_bpf.extcap.main import main

sys.exit(main())
"""


#: The command, for everybody.  Isolated, as root may run it; the installation compiled the bytecode.
_COMMAND = """\
#!/usr/bin/python3 -BI
import sys

sys.path.insert(0, {root!r})

from unixsock_bpf.cli.main import main

sys.exit(main())
"""


class InstallError(UnixsockError):
    """What could not be installed or removed, in one sentence."""


@dataclass(frozen=True)
class Places:
    """Where things go: the library, Wireshark's extcap and Lua plugin folders, its profiles.

    ``command``: where the ``unixsock`` command goes, for everybody; ``group``: whose members may capture.
    """

    library: Path
    extcap: tuple[Path, ...]
    plugins: Path
    profiles: Path
    command: Path | None = None
    group: str | None = None


def user_places() -> Places:
    """Return where things go for this user."""
    wireshark = folders.personal()
    return Places(folders.data_home() / "unixsock", wireshark.extcap, wireshark.plugins, wireshark.profiles)


def system_places() -> Places:
    """Return where things go for everybody.  Raises InstallError where Wireshark's folders are unknown."""
    try:
        wireshark = folders.system()
    except folders.FoldersError as error:
        raise InstallError(f"{error}, or use --user") from None
    # Not below /usr/local, which groups other than root's may write on some systems: part of it runs as root.
    return Places(LIBRARY, wireshark.extcap, wireshark.plugins, wireshark.profiles, COMMAND)


def demand_roots_own(places: Places) -> None:
    """Raise InstallError if root would follow what another user arranged in its home: by sudo -E, say."""
    if os.geteuid() == 0:
        for folder in (places.library, *places.extcap, places.plugins, places.profiles):
            _demand_roots(folder)


def _demand_roots(path: Path) -> None:
    """Raise InstallError if others than root could put something else at ``path``."""
    for start in {Path(os.path.abspath(path)), Path(os.path.realpath(path))}:
        for place in (start, *start.parents):
            try:
                status = place.lstat()
            except FileNotFoundError:
                continue
            shared = status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX
            if status.st_uid != 0 or (shared and not stat.S_ISLNK(status.st_mode)):
                raise InstallError(
                    f"root installs nothing by way of {place}, which others than root can write: "
                    "run it as the user whose home it is, or with --system for everybody"
                )


def granted() -> str | None:
    """The group that an earlier installation for everybody gave the right to capture; None if none."""
    if str(GROUP) not in _Manifest.load(LIBRARY).files:
        return None
    return _group_file()


def _group_file() -> str | None:
    try:
        return GROUP.read_text().strip() or None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InstallError(f"cannot read {GROUP}: {(error.strerror or '').lower()}") from None


def revoke(tell: Callable[[str], None]) -> None:
    """Take the right to capture from the group that has it, if one has.

    It needs nothing but what the installation put there: neither tshark nor a manifest that can be read.
    Files of the right go even if they were changed since.  Raise InstallError if one can't be removed.
    """
    try:
        manifest = _Manifest.load(LIBRARY) if _Manifest.path(LIBRARY).exists() else None
    except InstallError:
        manifest = None
    rights = (policy.SUDOERS, policy.RULE, policy.ACTION, GROUP, HELPER)
    ours = [path for path in rights if (str(path) in manifest.files if manifest else _gives_our_right(path))]
    group = _group_file() if GROUP in ours else None
    try:
        for path in ours:
            path.unlink(missing_ok=True)
            if manifest:
                del manifest.files[str(path)]
        if manifest and ours:
            manifest.save(LIBRARY)
    except OSError as error:
        raise InstallError(f"cannot remove {error.filename}: {(error.strerror or '').lower()}") from None
    if ours:
        tell(f"group {group} may not capture any more" if group else "no group may capture any more")


def _gives_our_right(path: Path) -> bool:
    """Whether a file of the right is the installation's, by its place or its content."""
    if LIBRARY in path.parents:
        return path.exists()
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return False
    return str(HELPER) in text or policy.ACTION_ID in text


@dataclass
class _Manifest:
    """What was put where: files with their SHA-256, links with ``-> target``; and folders that were made."""

    files: dict[str, str] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    #: While an installation is under way, what lies where it has not put a file yet.
    earlier: dict[str, str] = field(default_factory=dict)

    def knows(self, path: str, state: str) -> bool:
        """Whether what lies at ``path`` was put there."""
        return state in (self.files.get(path), self.earlier.get(path))

    @staticmethod
    def path(library: Path) -> Path:
        return library / "manifest.json"

    @classmethod
    def load(cls, library: Path) -> _Manifest:
        """The manifest of an installation, empty if there is none.  Raise InstallError.

        Root follows only one that root alone can write, and every user only one that names nothing
        but what ``install`` puts somewhere.
        """
        path = cls.path(library)
        if os.geteuid() == 0:
            _demand_roots(path)
        try:
            read = json.loads(path.read_text())
            files, folders, earlier = (
                dict(read["files"]),
                list(read["folders"]),
                dict(read.get("earlier", {})),
            )
            wrong = [name for name in files if not _may_be_ours(Path(name), library)]
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InstallError(f"{path} cannot be read: {error}") from None
        if wrong:
            raise InstallError(f"{path} cannot be read: {wrong[0]!r} is no file of an installation")
        return cls(files, folders, earlier)

    def save(self, library: Path) -> None:
        text = json.dumps({"version": __version__, **asdict(self)})
        _Item(self.path(library), text=text + "\n").put()


def _may_be_ours(path: Path, library: Path) -> bool:
    """Whether ``install`` puts files there: below the library, or under names of its own elsewhere."""
    return (
        path.is_absolute()
        and ".." not in path.parts
        and (
            library in path.parents
            or path.name in ("unixsock", "unixsock.lua")
            or path.parent.name == profile.NAME
            or path in (policy.SUDOERS, policy.ACTION, policy.RULE)
        )
    )


def _state(path: Path) -> str | None:
    """What lies at ``path``, as the manifest says it; None if nothing."""
    if path.is_symlink():
        return f"-> {os.readlink(path)}"
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return "something else" if path.exists() else None


@dataclass
class _Item:
    """One file to put somewhere: a copy, a text, or a link."""

    target: Path
    source: Path | None = None
    text: str | None = None
    link: Path | None = None
    mode: int = 0o644

    def state(self) -> str:
        """What will lie there."""
        if self.link is not None:
            return f"-> {self.link}"
        return hashlib.sha256(self._content()).hexdigest()

    def _content(self) -> bytes:
        return self.source.read_bytes() if self.source else (self.text or "").encode()

    def put(self) -> None:
        """Replaces what is there in one step, so that a Wireshark that runs sees the old or the new."""
        temporary = self.target.with_name(f".{self.target.name}.new")
        temporary.unlink(missing_ok=True)
        if self.link is not None:
            temporary.symlink_to(self.link)
        else:
            temporary.touch(0o600)
            temporary.write_bytes(self._content())
            temporary.chmod(self.mode)
        temporary.replace(self.target)


def _items(places: Places) -> list[_Item]:
    """Everything that belongs to an installation."""
    import sys

    root, library = folders.ROOT, places.library
    package = root / "unixsock_bpf"
    items = [
        _Item(library / "unixsock_bpf" / source.relative_to(package), source)
        for source in sorted(package.rglob("*"))
        if source.is_file() and "__pycache__" not in source.parts
    ]
    extcap = root / "extcap" / "unixsock"
    if extcap.is_file():
        items.append(_Item(library / "extcap" / "unixsock", extcap, mode=0o755))
    else:
        script = _EXTCAP.format(python=sys.executable, root=str(library))
        items.append(_Item(library / "extcap" / "unixsock", text=script, mode=0o755))
    try:
        main = folders.dissector_source()
    except folders.FoldersError as error:
        raise InstallError(str(error)) from None
    items += [
        _Item(library / "dissector" / source.relative_to(main.parent), source)
        for source in [main, *sorted((main.parent / "unixsock").rglob("*.lua"))]
    ]
    manual = root / "docs" / "filter.md"
    if manual.is_file():  # the toolbar's help
        items.append(_Item(library / "docs" / "filter.md", manual))
    items += [_Item(folder / "unixsock", link=library / "extcap" / "unixsock") for folder in places.extcap]
    items.append(_Item(places.plugins / "unixsock.lua", link=library / "dissector" / "unixsock.lua"))
    items += _for_everybody(places)
    folder = places.profiles / profile.NAME
    return [*items, *(_Item(folder / name, text=text) for name, text in profile.FILES.items())]


def _is_profile(path: Path) -> bool:
    """Whether ``path`` is one of the profile's files, which users change."""
    return path.parent.name == profile.NAME and path.name in profile.FILES


def _for_everybody(places: Places) -> list[_Item]:
    """The command, and what lets a group capture.  Raises InstallError."""
    items = []
    if places.command and (
        not places.command.exists() or str(places.command) in _Manifest.load(places.library).files
    ):
        items.append(_Item(places.command, text=_COMMAND.format(root=str(places.library)), mode=0o755))
    if places.group is None:
        return items
    helper = folders.ROOT / "libexec" / "unixsock-capture"
    if not helper.is_file():
        raise InstallError(f"the privileged helper is missing: there is no {helper}; install from a checkout")
    items.append(_Item(HELPER, helper, mode=0o755))
    items.append(_Item(GROUP, text=f"{places.group}\n"))
    with_sudo, with_polkit = policy.SUDOERS.parent.is_dir(), policy.ACTION.parent.is_dir()
    if not (with_sudo or with_polkit):
        raise InstallError("neither sudo nor polkit is here to let a group capture: install sudo")
    if with_sudo:
        items.append(_Item(policy.SUDOERS, text=policy.sudoers(places.group), mode=0o440))
    if with_polkit:
        items.append(_Item(policy.ACTION, text=policy.action()))
        items.append(_Item(policy.RULE, text=policy.rule(places.group)))
    return items


def install(places: Places, tell: Callable[[str], None]) -> None:
    """Installs, or brings an installation up to date.  ``tell`` gets a line for each thing users care for.

    A profile that was changed since is left as it is.  Raises InstallError: then nothing that
    was there before and belongs to someone else has been touched.
    """
    before = _Manifest.load(places.library)
    items = _items(places)
    for item in items:
        there = _state(item.target)
        foreign = str(item.target) not in before.files and not _is_profile(item.target)
        if there is not None and foreign and there != item.state():
            raise InstallError(
                f"{item.target} is there, and 'unixsock install' did not put it there: remove it first"
            )
    after = _Manifest(dict(before.files), list(before.folders))
    try:
        for item in items:
            _make_folder(item.target.parent, after)
            key, there = str(item.target), _state(item.target)
            after.files[key] = item.state()
            if there is not None and before.knows(key, there):
                after.earlier[key] = there
        after.save(places.library)  # so that one that is interrupted can be completed or removed
        for item in items:
            _put(item, before, after, tell)
        after.earlier.clear()
        _drop_bytecode(places.library, after)
        current = {str(item.target) for item in items}
        for path in sorted(set(after.files) - current):  # of an older version
            _remove(path, after, tell)
        _compile_bytecode(places.library, after)
        after.save(places.library)
    except OSError as error:
        raise InstallError(f"cannot write {error.filename}: {(error.strerror or '').lower()}") from None
    tell(f"library: {places.library}")
    if places.group:
        ways = [str(path) for path in (policy.SUDOERS, policy.ACTION) if str(path) in after.files]
        tell(f"privileged helper: {HELPER}, for group {places.group}, by {' and '.join(ways)}")
    for folder in places.extcap:
        tell(f"interface: {folder / 'unixsock'}")
    tell(f"dissector: {places.plugins / 'unixsock.lua'}")
    tell(f"profile: {places.profiles / profile.NAME}")


def _drop_bytecode(library: Path, manifest: _Manifest) -> None:
    """Remove all bytecode of the library's package, whether Python or the installation made it."""
    for folder in [*(library / "unixsock_bpf").rglob("__pycache__")]:
        shutil.rmtree(folder)
        manifest.folders = [one for one in manifest.folders if one != str(folder)]
    manifest.files = {
        name: state for name, state in manifest.files.items() if Path(name).parent.name != "__pycache__"
    }


def _compile_bytecode(library: Path, manifest: _Manifest) -> None:
    """Compile the library's package with the Python that will run it.

    Root's programs write none: the limits of whoever starts them would cut it, and Python would use
    what is left.  A package that can't be compiled is compiled at each start, in memory.
    """
    first_line = (library / "extcap" / "unixsock").read_text().partition("\n")[0]
    package = library / "unixsock_bpf"
    with contextlib.suppress(OSError):
        subprocess.run(
            [
                *(first_line[2:].split()[0], "-BIS", "-m", "compileall", "-q"),
                *("--invalidation-mode", "timestamp", str(package)),
            ],
            capture_output=True,
            check=False,
        )
    for path in sorted(package.rglob("__pycache__/*")):
        manifest.files[str(path)] = _state(path) or ""
        if str(path.parent) not in manifest.folders:
            manifest.folders.append(str(path.parent))


def _make_folder(folder: Path, manifest: _Manifest) -> None:
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for one in reversed(missing):
        one.mkdir()
        if str(one) not in manifest.folders:
            manifest.folders.append(str(one))


def _put(item: _Item, before: _Manifest, after: _Manifest, tell: Callable[[str], None]) -> None:
    there, wanted, key = _state(item.target), item.state(), str(item.target)
    changed_since = there is not None and not before.knows(key, there)
    if changed_since and there != wanted and _is_profile(item.target):
        if item.target.name != profile.RECENT:
            tell(f"kept, because it was changed: {item.target}")
        if key in before.files:
            after.files[key] = before.files[key]
        else:
            del after.files[key]
        return
    if there != wanted:
        item.put()


def _remove(path: str, manifest: _Manifest, tell: Callable[[str], None]) -> None:
    """Remove one file if it is as it was put there; Wireshark's own with the rest of the profile."""
    file = Path(path)
    there = _state(file)
    changed = there is not None and not manifest.knows(path, there)
    if changed and _is_profile(file) and file.name == profile.RECENT:
        changed = file.with_name("preferences").exists()
    if changed:
        tell(f"kept, because it was changed: {path}")
    elif there is not None:
        os.unlink(path)
    del manifest.files[path]


def uninstall(tell: Callable[[str], None], places: Places | None = None) -> None:
    """Remove what ``install`` put there, and the folders that it made, if they are empty.

    ``places``: a user's; None: everybody's, whose group's right goes first.  Raise InstallError.
    """
    library = places.library if places else LIBRARY
    if not places:
        revoke(tell)
    path = _Manifest.path(library)
    if not path.exists():
        tell(f"nothing to remove: there is no {path}")
        return
    manifest = _Manifest.load(library)
    try:
        _drop_bytecode(library, manifest)
        for file in sorted(manifest.files):
            _remove(file, manifest, tell)
        path.unlink()
        for folder in sorted(manifest.folders, key=len, reverse=True):
            if Path(folder).is_dir() and not os.listdir(folder):
                os.rmdir(folder)
    except OSError as error:
        raise InstallError(f"cannot remove {error.filename}: {(error.strerror or '').lower()}") from None
    if not LIBRARY.exists():
        programs.clear()
    tell(f"removed: {library} and its links in Wireshark's folders")
