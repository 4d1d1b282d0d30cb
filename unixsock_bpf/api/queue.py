"""A bounded queue from one thread to other threads or event loops."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from contextlib import suppress
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Ended(Exception):
    """The queue is closed and empty."""


class MessageQueue(Generic[_T]):
    """At most ``size`` queued items, in order.

    A reader that stops waiting takes no item with it: the next one is for the next reader.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: deque[_T] = deque()
        self._changed = threading.Condition()
        self._sleepers: set[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = set()
        self._ended = False
        self._error: BaseException | None = None

    def put(self, item: _T) -> bool:
        """Add an item, waiting for room.  Return False if the queue is closed."""
        with self._changed:
            while len(self._items) >= self._size and not self._ended:
                self._changed.wait()
            if self._ended:
                return False
            self._items.append(item)
            self._wake()
            return True

    def end(self, error: BaseException | None = None) -> None:
        """Refuse new items; the next reader gets ``error``, if any, after the queued items."""
        with self._changed:
            if not self._ended:
                self._ended, self._error = True, error
                self._wake()

    def close(self) -> None:
        """Discard queued items and refuse new ones."""
        with self._changed:
            self._ended, self._error = True, None
            self._items.clear()
            self._wake()

    def get(self) -> _T:
        """Return the next item.  Raises Ended, or the error that ended the queue."""
        with self._changed:
            while not self._ready():
                self._changed.wait()
            return self._take()

    async def get_async(self) -> _T:
        """Do as ``get``, in an event loop."""
        loop = asyncio.get_running_loop()
        while True:
            with self._changed:
                if self._ready():
                    return self._take()
                sleeper = loop, loop.create_future()
                self._sleepers.add(sleeper)
            try:
                await sleeper[1]
            finally:
                with self._changed:
                    self._sleepers.discard(sleeper)

    def _ready(self) -> bool:
        return bool(self._items) or self._ended

    def _take(self) -> _T:
        if self._items:
            self._changed.notify_all()
            return self._items.popleft()
        error, self._error = self._error, None
        raise error or Ended

    def _wake(self) -> None:
        self._changed.notify_all()
        for loop, sleeper in self._sleepers:
            with suppress(RuntimeError):  # that loop is closed
                loop.call_soon_threadsafe(_rouse, sleeper)


def _rouse(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)
