"""The right to capture that a group has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from unixsock_bpf.install.manifest import InstallError, Manifest
from unixsock_bpf.install.package import installed
from unixsock_bpf.privilege import launch, policy


def granted() -> str | None:
    """Return the group that an earlier system installation gave the right to capture; None if none."""
    if str(launch.GROUP) not in Manifest.load(launch.LIBRARY).files:
        return None
    return _group_file()


def _group_file() -> str | None:
    try:
        return launch.GROUP.read_text().strip() or None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InstallError(f"cannot read {launch.GROUP}: {(error.strerror or '').lower()}") from None


def revoke(report: Callable[[str], None]) -> None:
    """Take the right to capture from the group that has it, if one has.

    This needs neither tshark nor a readable manifest, and removes the files even if they were changed.
    Raises InstallError if one can't be removed.
    """
    try:
        manifest = Manifest.load(launch.LIBRARY) if Manifest.path(launch.LIBRARY).exists() else None
    except InstallError:
        manifest = None
    rights = [policy.SUDOERS, policy.RULE, launch.GROUP]
    if not installed():  # whose files are not ours to remove, and give no right to a group
        rights += [policy.ACTION, launch.HELPER]
    ours = [path for path in rights if (str(path) in manifest.files if manifest else _gives_our_right(path))]
    group = _group_file() if launch.GROUP in ours else None
    try:
        for path in ours:
            path.unlink(missing_ok=True)
            if manifest:
                del manifest.files[str(path)]
        if manifest and ours:
            manifest.save(launch.LIBRARY)
    except OSError as error:
        raise InstallError(f"cannot remove {error.filename}: {(error.strerror or '').lower()}") from None
    if ours:
        report(f"group {group} may not capture any more" if group else "no group may capture any more")


def _gives_our_right(path: Path) -> bool:
    """Return whether a file gives the right to the helper, by its place or its content."""
    if launch.LIBRARY in path.parents:
        return path.exists()
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return False
    return str(launch.HELPER) in text or policy.ACTION_ID in text
