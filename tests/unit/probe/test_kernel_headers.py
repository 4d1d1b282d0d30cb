"""Layouts by a compile of headers: a made-up kernel's, whose layouts are known."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from unixsock_bpf.errors import ProbeError
from unixsock_bpf.probe import kernel_headers

MEMBERS = {
    "sk_buff.len": 4,
    "sk_buff.inner.second": 10,
    "sk_buff.unnamed": 12,
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """All headers, empty but for a struct and the release."""
    for name in (*kernel_headers._HEADERS, "linux/kconfig.h"):
        path = tmp_path / "include" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "include/generated/utsrelease.h").write_text(f'#define UTS_RELEASE "{os.uname().release}"\n')
    (tmp_path / "include/linux/skbuff.h").write_text(
        "struct sk_buff { int first, len; struct { short first, second; } inner; union { int unnamed; }; };\n"
    )
    return tmp_path


def compiled(tree: Path, *wanted: str) -> dict[str, int]:
    found: dict[str, int] = kernel_headers._compiled(kernel_headers.lines(wanted, ["sk_buff"]), [tree])
    return found


def test_members_and_sizes(tree: Path) -> None:
    assert compiled(tree, *MEMBERS) == MEMBERS | {"sk_buff": 16}


def test_what_the_kernel_lacks_is_left_out(tree: Path) -> None:
    wanted = ("sk_buff.nothing", "sk_buff.len", "mount.mnt", "bio_vec.bv_page", "sk_buff.inner.third")
    assert compiled(tree, *wanted) == {"sk_buff.len": 4, "sk_buff": 16}


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("linux/kconfig.h", "#define CONFIG_RANDSTRUCT 1\n", "CONFIG_RANDSTRUCT"),
        ("linux/kconfig.h", "#define CONFIG_GCC_PLUGIN_RANDSTRUCT 1\n", "CONFIG_RANDSTRUCT"),
        (
            "generated/utsrelease.h",
            '#define UTS_RELEASE "6.1.0-other"\n',
            r"another kernel's \(6.1.0-other\)",
        ),
        ("linux/skbuff.h", "struct sk_buff {\n", "cannot be compiled: .*error"),
        ("linux/skbuff.h", "#include <linux/missing.h>\n", "cannot be compiled: .*missing.h"),
    ],
)
def test_headers_of_no_use_are_refused(tree: Path, name: str, text: str, reason: str) -> None:
    (tree / "include" / name).write_text(text)
    with pytest.raises(ProbeError, match=reason):
        compiled(tree, "sk_buff.len")


def test_a_tree_is_what_modules_are_built_against(tmp_path: Path) -> None:
    assert kernel_headers.tree("6.1", str(tmp_path)) == []
    made = tmp_path / "usr/build/include/generated"
    made.mkdir(parents=True)
    (tmp_path / "6.1").mkdir()
    (tmp_path / "6.1/build").symlink_to(tmp_path / "usr/build")
    assert kernel_headers.tree("6.1", str(tmp_path)) == []  # not made yet
    (made / "autoconf.h").touch()
    assert kernel_headers.tree("6.1", str(tmp_path)) == [tmp_path / "usr/build"]
    (tmp_path / "usr/source").mkdir()
    (tmp_path / "6.1/source").symlink_to(tmp_path / "usr/source")
    assert kernel_headers.tree("6.1", str(tmp_path)) == [tmp_path / "usr/source", tmp_path / "usr/build"]


def test_a_tree_that_others_may_write_does_not_count(tmp_path: Path) -> None:
    made = tmp_path / "build/include/generated"
    made.mkdir(parents=True)
    (made / "autoconf.h").touch()
    (tmp_path / "6.1").mkdir()
    (tmp_path / "6.1/build").symlink_to(tmp_path / "build")
    assert kernel_headers.tree("6.1", str(tmp_path)) == [tmp_path / "build"]
    for shared in (tmp_path / "build", tmp_path):
        before = shared.stat().st_mode
        shared.chmod(0o777)
        assert kernel_headers.tree("6.1", str(tmp_path)) == []
        shared.chmod(before)
