from __future__ import annotations

import asyncio

import pytest

from proxy.emulator.records import InFlight, Records


async def test_a_waiter_is_woken_by_the_record_that_it_waits_for() -> None:
    records: Records[str] = Records()
    waiter = asyncio.ensure_future(records.reached(2))
    await asyncio.sleep(0)

    records.add("one")
    await asyncio.sleep(0)
    assert not waiter.done()
    records.add("two")
    await waiter

    assert records == ["one", "two"]


async def test_what_has_arrived_is_not_waited_for() -> None:
    records: Records[str] = Records()
    records.add("one")

    await records.reached(1)

    assert records._waiters == []


async def test_a_waiter_that_gives_up_leaves_nothing_behind() -> None:
    records: Records[str] = Records()
    waiter = asyncio.ensure_future(records.reached(1))
    await asyncio.sleep(0)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter

    assert records._waiters == []


def test_in_flight_counts_in_all_and_by_key() -> None:
    counts = InFlight()
    with counts.one("a"):
        with counts.one("a"), counts.one("b"):
            inside = counts.total, dict(counts.by_key)
        with counts.one("b"):
            pass

    assert inside == (3, {"a": 2, "b": 1})
    assert (counts.total, counts.peak, counts.peak_by_key) == (0, 3, {"a": 2, "b": 1})


def test_beyond_the_limit_the_older_half_is_forgotten() -> None:
    kept: list[list[int]] = []
    records: Records[int] = Records(limit=4)
    for number in range(6):
        records.add(number)
        kept.append(list(records))

    assert kept[3:] == [[0, 1, 2, 3], [3, 4], [3, 4, 5]]
