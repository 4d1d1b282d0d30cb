"""What is used of bcc, which comes without types."""

import ctypes
from typing import Any

from . import utils as utils

__version__: str
lib: ctypes.CDLL

class BPF:
    KPROBE: int
    RAW_TRACEPOINT: int
    TRACING: int
    module: int

    def __init__(self, *, text: bytes, cflags: list[str], debug: int) -> None: ...
    def _trace_autoload(self) -> None: ...
    def dump_func(self, name: bytes) -> bytes: ...
    @staticmethod
    def _decode_table_type(description: Any) -> type[Any]: ...
