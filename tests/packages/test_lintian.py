"""Debian's own rules for packages."""

from __future__ import annotations

import subprocess


def test_lintian_has_nothing_to_say(debs: str) -> None:
    said = subprocess.run(
        ["lintian", "--no-cfg", "--allow-root", "--fail-on", "error,warning", *debs.split()],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert said.returncode == 0, said.stdout
