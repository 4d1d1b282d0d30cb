"""What this package needs besides itself, and the sentence where it is missing."""

from __future__ import annotations

#: Python packages that a capture needs, each with the remedy; ``unixsock check`` looks for them.
#: The only module that uses bcc, seccomp or pyshark reports its absence.
PACKAGES = {
    "lark": "install python3-lark (Debian, Ubuntu, Fedora) or python-lark (Arch), or 'lark' with pip",
}
#: Those of datasets and queries only.
DATASET_PACKAGES = {
    "pyarrow": "install the extra 'dataset' (pip install 'unixsock-bpf[dataset]', or pyarrow and numpy)",
    "numpy": "install the extra 'dataset' (pip install 'unixsock-bpf[dataset]', or numpy)",
    "duckdb": "install the extra 'dataset' (pip install 'unixsock-bpf[dataset]', or duckdb)",
}


def sentence(error: ImportError) -> str | None:
    """Explain a failed import, with the remedy; None if it is a fault of this package."""
    name = (error.name or "").partition(".")[0]
    remedies = PACKAGES | DATASET_PACKAGES
    if name in remedies:
        problem = "is missing" if isinstance(error, ModuleNotFoundError) else f"is of no use ({error})"
        return f"the Python package {name} {problem}: {remedies[name]}"
    if name == "unixsock_bpf" and isinstance(error, ModuleNotFoundError):
        return f"this installation is incomplete, {error.name} is missing: install it again"
    return None
