"""What the closing statistics say of losses."""

from __future__ import annotations

import pytest

from unixsock_bpf.capture.base import Statistics


@pytest.mark.parametrize(
    ("statistics", "text"),
    [
        (Statistics(), "0 lost"),
        (Statistics(lost_messages=2, untracked=3, skipped=4), "9 lost"),
        (Statistics(lost_messages=2, lost_events=7), "2 lost, and 7 events"),
        (Statistics(lost_events=1), "0 lost, and 1 event"),
    ],
)
def test_losses(statistics: Statistics, text: str) -> None:
    assert statistics.lost_text == text


def test_losses_that_the_kernel_does_not_count_are_unknown() -> None:
    assert Statistics(skipped=None).lost_text.startswith("0 lost; how many the hooks missed is unknown")


def test_reports_say_the_same() -> None:
    for one in (Statistics(messages=5, lost_messages=2, lost_events=3), Statistics(messages=1, skipped=None)):
        assert Statistics.of_report(one.report()) == one
