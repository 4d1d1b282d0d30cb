"""When a file of a dataset is closed; apart from the writer, which imports pyarrow."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Limits:
    """When a file is closed and the next one begun: bytes, and seconds since its first record."""

    size: int = 128_000_000
    age_s: float = 3600.0
