"""The table of primitives, and what is written down or laid out after it, say the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from unixsock_bpf import filter as capture_filter
from unixsock_bpf.filter import encode, parser
from unixsock_bpf.filter.primitives import EVENT_BIT, EVENTS, PRIMITIVES, TYPES, About, Member, Primitive
from unixsock_bpf.options import OPTIONS
from unixsock_bpf.probe.compiler import source

ROOT = Path(capture_filter.__file__).parents[2]
DOCS = ROOT / "docs"
#: An operand for each, where any will do.
WORDS = {
    "path": "/x",
    "comm": "x",
    "type": "stream",
    "event": "data",
    "cgroup": "/",
    "unit": "x",
    "container": "x",
}
JOINS = ("src", "dst", "and", "or", "not")


def text(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def test_the_manual_has_a_row_for_each_primitive() -> None:
    table = text("filter.md").partition("| | takes messages |\n|---|---|\n")[2].partition("\n\n")[0]
    rows = dict(re.findall(r"^\| `(.*?)` \| (.*) \|$", table, re.MULTILINE))
    assert rows == {one.syntax.replace("|", r"\|"): one.takes for one in PRIMITIVES.values()}


def test_the_manual_page_names_each_primitive_with_its_operand() -> None:
    listed = text("man/unixsock.1").partition('.BR "path GLOB"')[2].partition(";\njoined with")[0]
    shown = re.findall(r'(?<=[ "])[a-z\[][^",\n]*(?=[" ])', f'"path GLOB"{listed}')
    choices = "|".join(TYPES)
    assert [word.replace(choices, "T").strip() for word in shown] == [
        one.syntax for one in PRIMITIVES.values()
    ]


@pytest.mark.parametrize("name", ["completions/_unixsock", "completions/unixsock.bash"])
def test_completions_know_each_primitive(name: str) -> None:
    (terms,) = re.findall(r"terms=[('](.*?)[)']", text(name))
    assert sorted(terms.split()) == sorted([*PRIMITIVES, *JOINS])


def test_bash_completes_what_is_one_of_a_few() -> None:
    completion = text("completions/unixsock.bash")
    for one in PRIMITIVES.values():
        if one.operand.words:
            assert f"'{' '.join(one.operand.words)}'" in completion


def test_options_that_are_terms_are_primitives_with_the_same_limits() -> None:
    for option in OPTIONS:
        if option.primitive:
            operand = PRIMITIVES[option.name].operand
            assert option.metavar in (operand.syntax, "|".join(operand.words))
            if option.high:
                assert (option.low, option.high) == (operand.low, operand.high)  # type: ignore[attr-defined]


@pytest.mark.parametrize("one", PRIMITIVES.values(), ids=PRIMITIVES)
def test_the_parser_takes_each_with_its_operand_and_sides(one: Primitive) -> None:
    word = f" {WORDS.get(one.name, '1')}" if one.operand.syntax else ""
    sides = ("", "src ", "dst ") if one.sided else ("",)
    for side in sides:
        if "cgroup" not in (one.name, getattr(one.kernel, "of", "")):  # they need version 2
            assert capture_filter.parse(f"{side}{one.name}{word}").root.name == one.name  # type: ignore[union-attr]
    if not one.sided:
        with pytest.raises(capture_filter.FilterError):
            parser.parse(f"src {one.name}{word}")


def test_the_kernel_fills_each_fact() -> None:
    verdict = source("filter/verdict.h")
    for name, first in encode.FIRST_FACTS.items():
        assert f"w->facts[FILTER_FACT_{name}]" in verdict
        facts = PRIMITIVES[name].kernel
        assert isinstance(facts, Member)
        assert first + facts.facts <= 32


def test_types_and_events_have_a_bit_each() -> None:
    assert max(TYPES.values()) < 16
    assert max(EVENTS.values()) < 16
    assert EVENT_BIT == 16


def test_every_primitive_about_an_end_is_a_bit_and_none_about_a_message() -> None:
    assert {one.name for one in PRIMITIVES.values() if one.about is About.MESSAGE} == {
        *("type", "event", "fds", "creds", "less", "greater")
    }
