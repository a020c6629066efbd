"""Numbers survive the way from a worker to its parent."""

from __future__ import annotations

from proxy.ops.metrics import render
from proxy.ops.numbers import Numbers
from proxy.ops.transfer import dump, load
from proxy.plane.stats import Stats
from tests.unit.ops.builders import busy_numbers


def test_what_arrives_renders_as_what_was_sent() -> None:
    sent = busy_numbers()

    arrived = load(dump(sent))

    assert render(arrived) == render(sent)
    assert arrived.tokens == sent.tokens
    assert arrived.stats.failures == sent.stats.failures


def test_pids_and_the_bound_of_failures_survive() -> None:
    arrived = load(dump(busy_numbers((7, 8))))

    assert arrived.pids == (7, 8)
    assert arrived.stats.failures.maxlen == Stats().failures.maxlen


def test_it_is_one_line() -> None:
    assert len(dump(busy_numbers()).splitlines()) == 1


def test_nothing_survives_too() -> None:
    arrived = load(dump(Numbers(stats=Stats(), pids=())))

    assert (arrived.stats.routes, arrived.tokens, arrived.pids) == ({}, {}, ())
