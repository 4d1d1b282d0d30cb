"""Compiled programs as bytes that another process can load: with names where they refer to maps."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from unixsock_bpf.errors import ProbeError
from unixsock_bpf.probe import bpf_syscall

if TYPE_CHECKING:
    from bcc import BPF

#: Bytes of an instruction: u8 operation, u8 registers, s16 offset, s32 immediate value.
_SIZE = 8
#: BPF_ALU64 | BPF_MOV | BPF_K and BPF_LD | BPF_DW | BPF_IMM in linux/bpf.h.
_MOV_IMM = (0xB7, 0xB4)  # of 64 bits, and of 32: BPF_ALU | BPF_MOV | BPF_K
_LD_IMM64 = 0x18
#: The source register, in the high bits, that says that the value is a map's descriptor.
_PSEUDO_MAP_FD = 1
#: BPF_JMP | BPF_CALL, and the source registers that say that the value is the distance to a function, or the
#: number in BTF of one of the kernel's.
_CALL = 0x85
_PSEUDO_CALL = 1
_PSEUDO_KFUNC_CALL = 2
#: An addition to 64 bits (BPF_STX | BPF_DW | BPF_ATOMIC, BPF_ADD); with the offset that marks it in
#: state/state.h; and the value that has the register get what was there before (BPF_FETCH).
_ADD = 0xDB
_FETCH_MARK = 0x7E7C
_FETCH = 1
#: In UNIXSOCK_DEBUG, as bcc.DEBUG_BPF_REGISTER_STATE: show what the verifier says.
_DEBUG_VERIFIER = 16


@dataclass(frozen=True)
class Bytecode:
    """A program.

    ``maps``: their names by the number of the instruction that loads one.  ``functions``: by the number of
    the first instruction, the name of each subprogram, and whether it is global to the verifier.
    """

    instructions: bytes
    maps: dict[int, str]
    functions: dict[int, tuple[str, bool]] = field(default_factory=dict)

    def linked(self, fds: dict[str, int]) -> bytes:
        """Return the instructions with these descriptors for the maps.  Raises KeyError."""
        linked = bytearray(self.instructions)
        for number, name in self.maps.items():
            linked[number * _SIZE + 4 : (number + 1) * _SIZE] = fds[name].to_bytes(4, "little")
        return bytes(linked)

    def with_value(self, mark: int, value: int) -> Bytecode:
        """Return the same with ``value`` in the one instruction that loads the number ``mark``."""
        (at,) = (
            at
            for at in range(0, len(self.instructions), _SIZE)
            if self.instructions[at] in _MOV_IMM and self._immediate(at) == mark
        )
        changed = self.instructions[: at + 4] + value.to_bytes(4, "little") + self.instructions[at + _SIZE :]
        return Bytecode(changed, self.maps, self.functions)

    def calling(self, functions: dict[int, Subprogram]) -> Bytecode:
        """Return the same calling ``functions``, put behind it, in place of helpers of these numbers.

        They may call one another.
        """
        joined, maps_, begins = bytearray(self.instructions), dict(self.maps), {}
        at = 0
        while at < len(joined):
            number = int.from_bytes(joined[at + 4 : at + _SIZE], "little")
            if joined[at] == _CALL and joined[at + 1] == 0 and number in functions:
                code = functions[number].code
                if number not in begins:
                    begins[number] = begin = len(joined) // _SIZE
                    joined += code.instructions
                    maps_ |= {begin + place: name for place, name in code.maps.items()}
                joined[at + 1] = _PSEUDO_CALL << 4
                distance = begins[number] - at // _SIZE - 1
                joined[at + 4 : at + _SIZE] = distance.to_bytes(4, "little", signed=True)
            at += _SIZE
        placed = {
            begin: (functions[number].name, functions[number].is_global) for number, begin in begins.items()
        }
        return Bytecode(bytes(joined), maps_, placed)

    def calling_kernel(self, functions: dict[int, int]) -> Bytecode:
        """Return the same calling the kernel's functions, by their BTF numbers, in place of these helpers."""
        changed = bytearray(self.instructions)
        for at in range(0, len(self.instructions), _SIZE):
            if self.instructions[at] == _CALL and self._immediate(at) in functions:
                changed[at + 1] = _PSEUDO_KFUNC_CALL << 4
                changed[at + 4 : at + _SIZE] = functions[self._immediate(at)].to_bytes(4, "little")
        return Bytecode(bytes(changed), self.maps, self.functions)

    def _immediate(self, at: int) -> int:
        return int.from_bytes(self.instructions[at + 4 : at + _SIZE], "little")


@dataclass(frozen=True)
class Subprogram:
    """What programs call.  ``is_global``: the verifier looks at it once, and knows nothing of its callers."""

    name: str
    code: Bytecode
    is_global: bool


def of(instructions: bytes, fds: dict[str, int]) -> Bytecode:
    """Return the program that was compiled with these descriptors for maps."""
    names = {fd: name for name, fd in fds.items()}
    maps = {}
    changed = bytearray(instructions)
    for at in range(0, len(instructions), _SIZE):
        if instructions[at] == _ADD and instructions[at + 2 : at + 4] == _FETCH_MARK.to_bytes(2, "little"):
            changed[at + 2 : at + _SIZE] = b"\0\0" + _FETCH.to_bytes(4, "little")
        if instructions[at] == _LD_IMM64 and instructions[at + 1] >> 4 == _PSEUDO_MAP_FD:
            maps[at // _SIZE] = names[int.from_bytes(instructions[at + 4 : at + _SIZE], "little")]
    return Bytecode(bytes(changed), maps)


def map_fds(bpf: BPF) -> dict[str, int]:
    """Return the maps of a bcc module and their descriptors."""
    import bcc

    # bcc itself has no use for these two, and does not declare them.
    module = ctypes.c_void_p(bpf.module)
    count_of = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_void_p)(("bpf_num_tables", bcc.lib))
    name_of = ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t)(("bpf_table_name", bcc.lib))
    names = [name_of(module, at) for at in range(count_of(module))]
    return {name.decode(): bcc.lib.bpf_table_fd(bpf.module, name) for name in names}


def programs(bpf: BPF) -> dict[str, Bytecode]:
    """All programs of a bcc module, by the names of their C functions."""
    import bcc

    fds = map_fds(bpf)
    count = bcc.lib.bpf_num_functions(bpf.module)
    names = [bcc.lib.bpf_function_name(bpf.module, at) for at in range(count)]
    return {name.decode(): of(bpf.dump_func(name), fds) for name in names}


def load(name: str, type_: int, code: Bytecode, fds: dict[str, int], hook: tuple[int, int] = (0, 0)) -> int:
    """Load a program and return its descriptor.  Raises ProbeError.

    ``fds``: descriptors of the maps.  ``hook``, of a tracing program: its enum bpf_attach_type in
    linux/bpf.h, and the kernel's number for the function.
    """
    debug = int(os.environ.get("UNIXSOCK_DEBUG", "0")) & _DEBUG_VERIFIER
    try:
        return bpf_syscall.load_program(
            name, type_, code.linked(fds), hook, code.functions, 2 if debug else 0
        )
    except OSError as error:
        raise ProbeError(f"the program {name} can't be loaded: {error.strerror}") from None
