"""Cgroup primitives: from a path, a unit or a container to the cgroups that the kernel knows."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable
from functools import cached_property
from itertools import islice

from unixsock_bpf.filter.ast import Cgroup, Groups, Term
from unixsock_bpf.filter.errors import FilterError, shorten
from unixsock_bpf.linux.cgroups import ROOT_INODE, Group, groups, mount_point
from unixsock_bpf.record import containers_of

#: Levels that the probe compares: the root is level 0.
LEVELS = 16
#: Cgroups of one unit or container that a filter has at most.
MAX_GROUPS = 64

#: What systemd's names of units end in; others are taken for services, as systemctl does.
_ENDING = re.compile(r"\.(?:service|scope|slice|socket|mount|swap)$")
_ID = re.compile(r"[0-9a-f]{12,64}")


def find(path: str) -> Cgroup:
    """Find the cgroup at ``path``: absolute, or as in /proc/PID/cgroup.  Raises FilterError."""
    mount = _mount("cgroup")
    inside = path.removeprefix(mount) if (path + "/").startswith(mount + "/") else path
    parts = [part for part in inside.split("/") if part not in ("", ".")]
    full = os.path.join(mount, *parts)
    try:
        if ".." in parts or not os.path.isfile(os.path.join(full, "cgroup.controllers")):
            raise FileNotFoundError
        inode, root = os.stat(full).st_ino, os.stat(mount).st_ino
    except (OSError, ValueError):
        raise FilterError(f"there is no cgroup {shorten(path)} under {mount}") from None
    if len(parts) >= LEVELS:
        raise FilterError(
            f"the cgroup {shorten(path)} lies {len(parts)} levels deep; at most {LEVELS - 1} are possible"
        )
    return Cgroup("/" + "/".join(parts), inode, len(parts) if root == ROOT_INODE else None)


def unit(name: str) -> Groups:
    """Find the cgroups of a systemd unit; none where it does not run.  Raises FilterError."""
    _mount("unit")
    return Lookup().unit(name if _ENDING.search(name) else f"{name}.service")


def container(name: str) -> Groups:
    """Find the cgroups of a container; none where it does not run.  Raises FilterError."""
    _mount("container")
    if _ID.fullmatch(name):
        return Lookup().container((name[:12],))
    return Lookup().container((name, *_ids_of(name)))


def _ids_of(name: str) -> tuple[str, ...]:
    from unixsock_bpf.linux import containers  # root's part needs it not

    return containers.ids_of(name)


def _mount(primitive: str) -> str:
    mount = mount_point()
    if mount is None:
        raise FilterError(f"{primitive} needs cgroup version 2, which is not mounted here")
    return mount


class Lookup:
    """The cgroups that exist now, read once."""

    @cached_property
    def _groups(self) -> dict[bytes, Group]:
        return {path: group for path, group in groups().items() if len(group.ids) <= LEVELS}

    def unit(self, name: str) -> Groups:
        """Return the cgroups of unit ``name``, each without those below it."""
        own = os.fsencode(name)
        return Groups((name,), self._chosen(lambda path: path.rpartition(b"/")[2] == own))

    def container(self, names: tuple[str, ...]) -> Groups:
        """Return the cgroups of the container that has one of ``names``, each without those below it."""
        known = {os.fsencode(name) for name in names}

        def is_its(path: bytes) -> bool:
            return not known.isdisjoint(containers_of(path)) and known.isdisjoint(
                containers_of(path.rpartition(b"/")[0])
            )

        return Groups(names, self._chosen(is_its))

    def renewed(self, term: Term) -> Term:
        """Return ``term`` with the cgroups that it has now."""
        value = term.value
        if isinstance(value, Groups):
            renew = (
                self._renewed_container if term.name == "container" else lambda old: self.unit(old.names[0])
            )
            return dataclasses.replace(term, value=renew(value))
        if isinstance(value, Cgroup):
            group = self._groups.get(os.fsencode(value.path))
            return dataclasses.replace(term, value=_cgroup(os.fsencode(value.path), group)) if group else term
        return term

    def _renewed_container(self, old: Groups) -> Groups:
        """Return a container's cgroups; ask engines for its id only where there is a new container."""
        present = frozenset(name for path in self._groups for name in containers_of(path))
        own = old.names[0]
        if _ID.fullmatch(own) or present == _seen.get(own):
            return self.container(old.names)
        _seen[own] = present
        return self.container((own, *_ids_of(own)))

    def _chosen(self, is_wanted: Callable[[bytes], bool]) -> tuple[Cgroup, ...]:
        chosen = (_cgroup(path, group) for path, group in self._groups.items() if is_wanted(path))
        return tuple(islice(chosen, MAX_GROUPS))


#: The containers that existed when an engine was last asked for a name.
_seen: dict[str, frozenset[bytes]] = {}


def _cgroup(path: bytes, group: Group) -> Cgroup:
    return Cgroup(os.fsdecode(path), group.ids[-1], len(group.ids) - 1 if group.from_root else None)
