"""Putting the interface, the dissector and a profile where Wireshark finds them, and taking them away.

Everything is copied into one folder, the library; Wireshark's folders get links into it, so
that each file finds its siblings, and Wireshark's search for plugins finds none but the main
one.  A manifest in the library lists every file with its hash: only those are ever removed,
and only while they are as they were put there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
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


#: The command, for everybody.  Isolated, as root may run it.
_COMMAND = """\
#!/usr/bin/python3 -I
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


def granted(places: Places) -> str | None:
    """The group that an earlier installation at ``places`` gave the right to capture; None if none."""
    if not _is_ours(GROUP, places):
        return None
    try:
        return GROUP.read_text().strip() or None
    except OSError as error:
        raise InstallError(f"cannot read {GROUP}: {(error.strerror or '').lower()}") from None


@dataclass
class _Manifest:
    """What was put where: files with their SHA-256, links with ``-> target``; and folders that were made."""

    files: dict[str, str] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)

    @staticmethod
    def path(places: Places) -> Path:
        return places.library / "manifest.json"

    @classmethod
    def load(cls, places: Places) -> _Manifest:
        try:
            read = json.loads(cls.path(places).read_text())
            return cls(dict(read["files"]), list(read["folders"]))
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InstallError(f"{cls.path(places)} cannot be read: {error}") from None

    def save(self, places: Places) -> None:
        text = json.dumps({"version": __version__, "files": self.files, "folders": self.folders})
        self.path(places).write_text(text + "\n")


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
    if places.command and (not places.command.exists() or _is_ours(places.command, places)):
        items.append(_Item(places.command, text=_COMMAND.format(root=str(places.library)), mode=0o755))
    if places.group is None:
        return items
    helper = folders.ROOT / "libexec" / "unixsock-capture"
    if not helper.is_file():
        raise InstallError(f"the privileged part is missing: there is no {helper}; install from a checkout")
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


def _is_ours(path: Path, places: Places) -> bool:
    return str(path) in _Manifest.load(places).files


def install(places: Places, tell: Callable[[str], None]) -> None:
    """Installs, or brings an installation up to date.  ``tell`` gets a line for each thing users care for.

    A profile that was changed since is left as it is.  Raises InstallError: then nothing that
    was there before and belongs to someone else has been touched.
    """
    before = _Manifest.load(places)
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
            _put(item, before, after, tell)
            after.save(places)
        current = {str(item.target) for item in items}
        for path in sorted(set(after.files) - current):  # of an older version
            _remove(path, after, tell)
        after.save(places)
    except OSError as error:
        raise InstallError(f"cannot write {error.filename}: {(error.strerror or '').lower()}") from None
    tell(f"library: {places.library}")
    if places.group:
        ways = [str(path) for path in (policy.SUDOERS, policy.ACTION) if str(path) in after.files]
        tell(f"privileged part: {HELPER}, for group {places.group}, by {' and '.join(ways)}")
    for folder in places.extcap:
        tell(f"interface: {folder / 'unixsock'}")
    tell(f"dissector: {places.plugins / 'unixsock.lua'}")
    tell(f"profile: {places.profiles / profile.NAME}")


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
    changed_since = there is not None and there != before.files.get(key)
    if changed_since and there != wanted and _is_profile(item.target):
        if item.target.name != profile.RECENT:
            tell(f"kept, because it was changed: {item.target}")
        return
    if there != wanted:
        item.put()
    after.files[key] = wanted


def _remove(path: str, manifest: _Manifest, tell: Callable[[str], None]) -> None:
    """Removes one file if it is as it was put there; Wireshark's own with the rest of the profile."""
    file = Path(path)
    there = _state(file)
    changed = there is not None and there != manifest.files[path]
    if changed and _is_profile(file) and file.name == profile.RECENT:
        changed = file.with_name("preferences").exists()
    if changed:
        tell(f"kept, because it was changed: {path}")
    elif there is not None:
        os.unlink(path)
    del manifest.files[path]


def uninstall(places: Places, tell: Callable[[str], None]) -> None:
    """Removes what ``install`` put there, and the folders that it made, if they are empty.

    Raises InstallError.
    """
    path = _Manifest.path(places)
    if not path.exists():
        tell(f"nothing to remove: there is no {path}")
        return
    manifest = _Manifest.load(places)
    try:
        for file in sorted(manifest.files):
            _remove(file, manifest, tell)
        path.unlink()
        for folder in sorted(manifest.folders, key=len, reverse=True):
            shutil.rmtree(Path(folder) / "__pycache__", ignore_errors=True)  # Python made it, from our files
            if Path(folder).is_dir() and not os.listdir(folder):
                os.rmdir(folder)
    except OSError as error:
        raise InstallError(f"cannot remove {error.filename}: {(error.strerror or '').lower()}") from None
    if not LIBRARY.exists():
        programs.clear()
    tell(f"removed: {places.library} and its links in Wireshark's folders")
