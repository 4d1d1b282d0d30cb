"""The fuzzers' corpus, as a regression test: what was found once, and an input for each part of a parser."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz.targets import TARGETS

CORPUS = Path(__file__).parents[1] / "fuzz/corpus"


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_is_handled(name: str) -> None:
    files = sorted((CORPUS / name).iterdir())
    assert files
    for file in files:
        TARGETS[name](file.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_cut_anywhere_it_is_handled(name: str) -> None:
    for file in (CORPUS / name).iterdir():
        data = file.read_bytes()[:400]
        for size in range(len(data)):
            TARGETS[name](data[:size])
