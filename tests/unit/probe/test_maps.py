"""How large maps are, and how their elements are read while others come and go."""

from __future__ import annotations

import ctypes
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from unixsock_bpf.probe import maps
from unixsock_bpf.probe.maps import Map, Shape

HASH = Shape(type=1, key_size=4, leaf_size=4, max_entries=8, flags=0, key="", leaf="")


class Table:
    """A kernel's map for ``bcc.lib``, which deletes a key each time that one is looked up."""

    def __init__(self, keys: list[int], victims: list[int]) -> None:
        self.keys = keys
        self.victims = victims
        self.steps = 0

    def bpf_get_first_key(self, _fd: int, key: Any, _size: int) -> int:
        return self._give(key, 0)

    def bpf_get_next_key(self, _fd: int, key: Any, following: Any) -> int:
        # As in Linux: after a key that is not there any more comes the first one.
        self.steps += 1
        value = key._obj.value
        return self._give(following, self.keys.index(value) + 1 if value in self.keys else 0)

    def _give(self, key: Any, at: int) -> int:
        if at >= len(self.keys):
            return -1
        key._obj.value = self.keys[at]
        return 0

    def bpf_lookup_elem(self, _fd: int, key: Any, leaf: Any) -> int:
        if key._obj.value not in self.keys:
            return -1
        leaf._obj.value = key._obj.value * 10
        if self.victims and key._obj.value == self.victims[0]:
            self.keys.remove(self.victims.pop(0))
        return 0


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Map:
    made = Map(0, HASH)
    made.__dict__["Key"] = ctypes.c_uint32
    made.__dict__["Leaf"] = ctypes.c_uint32
    return made


def pairs(table: Map, monkeypatch: pytest.MonkeyPatch, kernel: Table) -> list[tuple[int, int]]:
    monkeypatch.setitem(sys.modules, "bcc", SimpleNamespace(lib=kernel))
    return [(key.value, leaf.value) for key, leaf in table.items()]


def test_each_element_once(table: Map, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pairs(table, monkeypatch, Table([3, 1, 2], [])) == [(3, 30), (1, 10), (2, 20)]


def test_what_is_deleted_meanwhile_lets_nothing_come_twice(
    table: Map, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = pairs(table, monkeypatch, Table([5, 4, 3, 2, 1], [4, 2]))
    assert sorted(found) == [(n, n * 10) for n in (1, 2, 3, 4, 5)]


def test_a_map_that_changes_for_ever_has_an_end(table: Map, monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless(Table):
        def bpf_lookup_elem(self, fd: int, key: Any, leaf: Any) -> int:
            found = super().bpf_lookup_elem(fd, key, leaf)
            self.keys[:] = [self.keys[-1] + 1, self.keys[-1] + 2]
            return found

    kernel = Endless([1, 2], [])
    assert len(pairs(table, monkeypatch, kernel)) <= 4 * HASH.max_entries
    assert kernel.steps <= 4 * HASH.max_entries


def test_where_memory_is_taken_on_demand_a_map_takes_none_for_its_elements() -> None:
    endpoints = Shape(type=1, key_size=8, leaf_size=700, max_entries=1, flags=0, key="", leaf="")
    on_demand = maps.sized("endpoints", endpoints, 64, on_demand=True)
    beforehand = maps.sized("endpoints", endpoints, 64, on_demand=False)
    assert on_demand.max_entries > beforehand.max_entries
    assert maps.memory(on_demand) < 4 * 2**20 < maps.memory(beforehand) < 30 * 2**20


def test_the_ring_has_a_power_of_two_of_bytes() -> None:
    ring = Shape(type=27, key_size=0, leaf_size=0, max_entries=4096, flags=0, key="", leaf="")
    assert maps.memory(maps.sized("ring", ring, 3, on_demand=True)) == 4 * 2**20
