"""The last descriptors are kept for what must go on."""

from __future__ import annotations

import logging
import resource
import sys

import pytest

from proxy.ops.loglimit import RepeatLimiter
from proxy.plane import descriptors


@pytest.mark.parametrize(
    ("limit", "number", "within"),
    [
        (256, 191, 0),
        (256, 192, 1),
        (256, 193, 2),
        (128, 63, 0),
        (128, 64, 1),
        (64, 31, 0),  # Half of them, where there are fewer than twice the reserve.
        (64, 32, 1),
    ],
)
def test_the_reserve_begins_at_a_number(
    limit: int, number: int, within: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descriptors, "soft_limit", lambda: limit)

    assert descriptors.beyond(number) == within


def test_that_none_is_left_is_one_line_a_minute(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(descriptors, "soft_limit", lambda: 256)
    for number in (100, 200, 201, 202):
        descriptors.beyond(number)

    limiter = RepeatLimiter(lambda: 0.0)
    assert len(caplog.records) == 3
    assert [limiter.filter(each) for each in caplog.records] == [True, False, False]
    assert {each.levelno for each in caplog.records} == {logging.WARNING}


@pytest.mark.parametrize(("soft", "files"), [(1024, 1024), (resource.RLIM_INFINITY, sys.maxsize)])
def test_the_limit_is_the_soft_one_if_there_is_one(
    soft: int, files: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, resource.RLIM_INFINITY))

    assert descriptors.soft_limit() == files


def test_where_sockets_are_no_descriptors_there_is_no_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1, 1))
    monkeypatch.setattr(descriptors, "_resource", None)

    descriptors.raise_soft_limit()

    assert descriptors.soft_limit() == sys.maxsize
    assert descriptors.beyond(1_000_000) == 0
