"""Install the interface, the dissector and a profile where Wireshark finds them, and uninstall them.

Everything is copied into one folder, the library.  Wireshark's folders get links into it, so that each file
finds its siblings, and Wireshark's search for plugins finds only the main one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from unixsock_bpf import dependencies, own_files
from unixsock_bpf.install import profile
from unixsock_bpf.install.manifest import InstallError, Item, Manifest, is_profile, state_of
from unixsock_bpf.install.places import Places
from unixsock_bpf.install.rights import revoke
from unixsock_bpf.privilege import launch, policy
from unixsock_bpf.probe import cache as programs
from unixsock_bpf.wireshark import folders

#: The extcap for the user of an environment that pip made: with its Python, which has what pip installed.
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


def files_of(places: Places) -> list[Item]:
    """Return all files of an installation.  Raises InstallError."""
    library, package = places.library, own_files.ROOT / "unixsock_bpf"
    items = [
        Item(library / "unixsock_bpf" / source.relative_to(package), source)
        for source in sorted(package.rglob("*"))
        if source.is_file() and "__pycache__" not in source.parts
    ]
    extcap = own_files.find("extcap/unixsock")
    # For everybody, root among them, never with the Python of a user's environment.
    if extcap and (places.command or not dependencies.isolated()):
        items.append(Item(library / "extcap" / "unixsock", extcap, mode=0o755))
    else:
        script = _EXTCAP.format(python=sys.executable, root=str(library))
        items.append(Item(library / "extcap" / "unixsock", text=script, mode=0o755))
    try:
        main = folders.dissector_source()
    except folders.FoldersError as error:
        raise InstallError(str(error)) from None
    items += [
        Item(library / "dissector" / source.relative_to(main.parent), source)
        for source in [main, *sorted((main.parent / "unixsock").rglob("*.lua"))]
    ]
    manual = own_files.find("docs/filter.md")
    if manual:  # the toolbar's help
        items.append(Item(library / "docs" / "filter.md", manual))
    items += [Item(folder / "unixsock", link=library / "extcap" / "unixsock") for folder in places.extcap]
    items.append(Item(places.plugins / "unixsock.lua", link=library / "dissector" / "unixsock.lua"))
    items += _for_everybody(places)
    folder = places.profiles / profile.NAME
    return [*items, *(Item(folder / name, text=text) for name, text in profile.FILES.items())]


def _for_everybody(places: Places) -> list[Item]:
    """Return the command, and the files that let a group capture.  Raises InstallError."""
    items = []
    if places.command and (
        not places.command.exists() or str(places.command) in Manifest.load(places.library).files
    ):
        items.append(Item(places.command, text=_COMMAND.format(root=str(places.library)), mode=0o755))
    if places.group is None:
        return items
    helper = own_files.find("libexec/unixsock-capture")
    if helper is None:
        missing = own_files.ROOT / "libexec" / "unixsock-capture"
        raise InstallError(f"the privileged helper is missing: there is no {missing}")
    items.append(Item(launch.HELPER, helper, mode=0o755))
    if policy.ACTION.parent.is_dir():
        items.append(Item(policy.ACTION, text=policy.action()))
    return [*items, *_right_of(places.group, policy.ACTION.parent.is_dir())]


def _right_of(group: str, with_polkit: bool) -> list[Item]:
    """Return the files that name the group.  Raises InstallError if nothing here reads them."""
    items = [Item(launch.GROUP, text=f"{group}\n")]
    with_sudo = policy.SUDOERS.parent.is_dir()
    if not (with_sudo or with_polkit):
        raise InstallError("neither sudo nor polkit is here to let a group capture: install sudo")
    if with_sudo:
        items.append(Item(policy.SUDOERS, text=policy.sudoers(group), mode=0o440))
    if with_polkit:
        items.append(Item(policy.RULE, text=policy.rule(group)))
    return items


def install_right(group: str, report: Callable[[str], None]) -> None:
    """Let a group capture by the helper of a distribution's package, which brought all other files.

    Raises InstallError: then no file has been touched that ``install`` did not put there.
    """
    items = _right_of(group, policy.RULE.parent.is_dir())
    _update(launch.LIBRARY, items, report)
    _report_right(group, items, report)


def _report_right(group: str, items: list[Item], report: Callable[[str], None]) -> None:
    targets = [item.target for item in items]
    ways = [str(path) for path in (policy.SUDOERS, policy.RULE) if path in targets]
    report(f"privileged helper: {launch.HELPER}, for group {group}, by {' and '.join(ways)}")


def install(places: Places, report: Callable[[str], None]) -> None:
    """Install, or update an installation.  ``report`` gets a line for each thing that users care for.

    A profile that the user changed is left as it is.  Raises InstallError: then no file has been touched
    that ``install`` did not put there.
    """
    items = files_of(places)
    _update(places.library, items, report, bytecode=True)
    report(f"library: {places.library}")
    if places.group:
        _report_right(places.group, items, report)
    for folder in places.extcap:
        report(f"interface: {folder / 'unixsock'}")
    report(f"dissector: {places.plugins / 'unixsock.lua'}")
    report(f"profile: {places.profiles / profile.NAME}")


def _update(
    library: Path, items: list[Item], report: Callable[[str], None], *, bytecode: bool = False
) -> None:
    """Put ``items``, remove what an older version had besides, and keep the manifest.  Raises InstallError.

    ``bytecode``: compile the package that is in the library.
    """
    before = Manifest.load(library)
    after = Manifest(dict(before.files), list(before.folders))
    try:
        _refuse_foreign(items, before)
        staged = _stage(library, items, before, after, report)
        try:
            for item in staged:
                item.commit()
        except BaseException:
            for item in staged:
                item.discard()
            raise
        after.earlier.clear()
        if bytecode:
            _drop_bytecode(library, after)
        current = {str(item.target) for item in items}
        for path in sorted(set(after.files) - current):  # of an older version
            _remove(path, after, report)
        if bytecode:
            compile_bytecode(library, after)
        after.save(library)
    except OSError as error:
        raise InstallError(f"cannot write {error.filename}: {(error.strerror or '').lower()}") from None


def _refuse_foreign(items: list[Item], before: Manifest) -> None:
    """Raise InstallError if a file is in the way that ``install`` did not put there, OSError."""
    for item in items:
        there = state_of(item.target)
        foreign = str(item.target) not in before.files and not is_profile(item.target)
        if there is not None and foreign and there != item.state():
            raise InstallError(
                f"{item.target} is there, and 'unixsock install' did not put it there: remove it first"
            )


def _stage(
    library: Path, items: list[Item], before: Manifest, after: Manifest, report: Callable[[str], None]
) -> list[Item]:
    """Write each item that is not there yet beside its place, and return these items.

    If one can't be written, on a full disk for example, nothing has changed.  Raises OSError.
    """
    staged = []
    try:
        for item in items:
            _make_folder(item.target.parent, after)
            key, there = str(item.target), state_of(item.target)
            after.files[key] = item.state()
            if there is not None and before.knows(key, there):
                after.earlier[key] = there
        for item in items:
            if _is_wanted(item, before, after, report):
                staged.append(item)
                item.stage()
        after.save(library)  # so that one that is interrupted from here on can be completed or removed
    except BaseException:
        for item in staged:
            item.discard()
        for folder in sorted(set(after.folders) - set(before.folders), key=len, reverse=True):
            with contextlib.suppress(OSError):  # not empty
                os.rmdir(folder)
        raise
    return staged


def _drop_bytecode(library: Path, manifest: Manifest) -> None:
    """Remove all bytecode of the library's package, whether Python or the installation made it."""
    for folder in [*(library / "unixsock_bpf").rglob("__pycache__")]:
        shutil.rmtree(folder)
        manifest.folders = [one for one in manifest.folders if one != str(folder)]
    manifest.files = {
        name: state for name, state in manifest.files.items() if Path(name).parent.name != "__pycache__"
    }


def compile_bytecode(library: Path, manifest: Manifest) -> None:
    """Compile the library's package with the Python that will run it.

    Root's programs write no bytecode: the resource limits of the user who starts them would truncate it, and
    Python would use the rest.  A package that can't be compiled here is compiled at each start, in memory.
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
        manifest.files[str(path)] = state_of(path) or ""
        if str(path.parent) not in manifest.folders:
            manifest.folders.append(str(path.parent))


def _make_folder(folder: Path, manifest: Manifest) -> None:
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for one in reversed(missing):
        one.mkdir()
        if str(one) not in manifest.folders:
            manifest.folders.append(str(one))


def _is_wanted(item: Item, before: Manifest, after: Manifest, report: Callable[[str], None]) -> bool:
    """Return whether the file has to be written: it is another, and not one that the user changed."""
    there, wanted, key = state_of(item.target), item.state(), str(item.target)
    changed_since = there is not None and not before.knows(key, there)
    if changed_since and there != wanted and is_profile(item.target):
        if item.target.name != profile.RECENT:
            report(f"kept, because it was changed: {item.target}")
        if key in before.files:
            after.files[key] = before.files[key]
        else:
            del after.files[key]
        return False
    return there != wanted


def _remove(path: str, manifest: Manifest, report: Callable[[str], None]) -> None:
    """Remove one file if it is as it was installed; Wireshark's own with the rest of the profile."""
    file = Path(path)
    there = state_of(file)
    changed = there is not None and not manifest.knows(path, there)
    if changed and is_profile(file) and file.name == profile.RECENT:
        changed = file.with_name("preferences").exists()
    if changed:
        report(f"kept, because it was changed: {path}")
    elif there is not None:
        os.unlink(path)
    del manifest.files[path]


def uninstall(report: Callable[[str], None], places: Places | None = None) -> None:
    """Remove what ``install`` put there, and the folders that it made, if they are empty.

    ``places``: a user's; None: everybody's, whose group's right goes first.  Raise InstallError.
    """
    library = places.library if places else launch.LIBRARY
    if not places:
        revoke(report)
    path = Manifest.path(library)
    if not path.exists():
        report(f"nothing to remove: there is no {path}")
        return
    manifest = Manifest.load(library)
    try:
        _drop_bytecode(library, manifest)
        for file in sorted(manifest.files):
            Item(Path(file)).discard()  # of an installation that was killed
            _remove(file, manifest, report)
        path.unlink()
        for folder in sorted(manifest.folders, key=len, reverse=True):
            if Path(folder).is_dir() and not os.listdir(folder):
                os.rmdir(folder)
    except OSError as error:
        raise InstallError(f"cannot remove {error.filename}: {(error.strerror or '').lower()}") from None
    if not launch.LIBRARY.exists():
        programs.clear()
    report(f"removed: {library} and its links in Wireshark's folders")
