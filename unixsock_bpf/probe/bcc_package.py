"""bcc's Python package, which distributions have and PyPI has not: its ``bcc`` is another project's.

It is plain Python over libbcc, so that any Python 3 can use it, also one in a virtual environment that sees
nothing else of the system's.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

#: Where distributions keep Python packages; only root writes there.
_FOLDERS = (("/usr/lib/python3", "dist-packages"), ("/usr/lib", "python3*/site-packages"),
            ("/usr/lib64", "python3*/site-packages"))  # fmt: skip


def _is_bcc(package: Path) -> bool:
    """Return whether a folder is the package that compiles BPF."""
    return (package / "libbcc.py").is_file() and (package / "__init__.py").is_file()


def _of_the_system() -> Iterator[Path]:
    for folder, pattern in _FOLDERS:
        yield from (one / "bcc" for one in sorted(Path(folder).glob(pattern), reverse=True))


def load() -> ModuleType:
    """Import bcc, this interpreter's or else the system's, and return it.

    Raises ImportError, or whatever else a foreign package of that name or a missing libbcc raises.
    """
    if "bcc" not in sys.modules:
        own = importlib.util.find_spec("bcc")
        if not (own and any(_is_bcc(Path(place)) for place in own.submodule_search_locations or ())):
            package = next(filter(_is_bcc, _of_the_system()), None)
            if package:
                spec = importlib.util.spec_from_file_location(
                    "bcc", package / "__init__.py", submodule_search_locations=[str(package)]
                )
                assert spec
                assert spec.loader
                module = importlib.util.module_from_spec(spec)
                sys.modules["bcc"] = module
                try:
                    spec.loader.exec_module(module)
                except BaseException:
                    del sys.modules["bcc"]
                    raise
    module = importlib.import_module("bcc")
    module.BPF  # noqa: B018  # another package is called bcc, too
    return module
