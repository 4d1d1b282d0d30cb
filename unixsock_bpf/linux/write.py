"""Writing all of something, however little the kernel takes at a time."""

from __future__ import annotations

import os


def write_all(fd: int, data: bytes) -> None:
    """Write ``data`` to a descriptor that blocks.  Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def drop_written(pieces: list[bytes | memoryview], written: int) -> tuple[int, int]:
    """Remove the first ``written`` bytes of ``pieces``.

    Returns how many whole pieces went, and how many bytes of the one that is first now.
    """
    if written == sum(map(len, pieces)):  # the usual case, of up to a thousand pieces
        done = len(pieces)
        pieces.clear()
        return done, 0
    done = 0
    while done < len(pieces) and written >= len(pieces[done]):
        written -= len(pieces[done])
        done += 1
    del pieces[:done]
    if written:
        pieces[0] = memoryview(pieces[0])[written:]
    return done, written
