"""What many connections take together of a turn of the loop."""

from __future__ import annotations

import asyncio

import pytest

from proxy.plane.http2.share import TURN_SECONDS, TURN_WORK, Share


class Time:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def still() -> float:
    """Be a clock that stands still: nothing takes longer than what is reckoned."""
    return 1000.0


class Busy:
    """Takes a turn's worth of work in each of so many turns."""

    def __init__(self, share: Share, log: list[str], name: str, turns: int, work: float) -> None:
        self.share, self.log, self.name, self.turns = share, log, name, turns
        self.work = work

    def take_turn(self) -> None:
        self.log.append(self.name)
        self.turns -= 1
        self.work = TURN_WORK
        self.share.spend(self.work)
        if self.turns:
            self.share.wait(self)


async def turns(log: list[str]) -> list[list[str]]:
    """Return what happens in each turn of the loop until nothing does."""
    seen: list[list[str]] = []
    while not seen or seen[-1]:
        before = len(log)
        await asyncio.sleep(0)
        seen.append(log[before:])
    return seen[:-1]


async def test_one_turn_is_for_one_that_needs_all_of_it() -> None:
    share, log = Share(still), list[str]()
    for name in "abc":
        share.wait(Busy(share, log, name, turns=2, work=TURN_WORK))

    assert await turns(log) == [[name] for name in "abcabc"]


async def test_one_turn_is_for_as_many_as_it_is_enough_for() -> None:
    class Small(Busy):
        def take_turn(self) -> None:
            self.log.append(self.name)
            self.share.spend(TURN_WORK / 4)

    share, log = Share(still), list[str]()
    for name in "abcdef":
        share.wait(Small(share, log, name, turns=1, work=1.0))

    assert await turns(log) == [list("abcd"), list("ef")]


async def test_one_of_those_who_come_first_and_one_of_the_others_go_on_together() -> None:
    share, log = Share(still), list[str]()
    for name in "abc":
        share.wait(Busy(share, log, name, turns=1, work=TURN_WORK))
    for name in "12":
        share.wait(Busy(share, log, name, turns=1, work=0.0))

    assert await turns(log) == [["1", "a"], ["2", "b"], ["c"]]


async def test_the_next_turn_has_its_own_share() -> None:
    share = Share(still)
    share.spend(2 * TURN_WORK)
    assert share.left < 0

    await asyncio.sleep(0)

    assert share.left == TURN_WORK


class Slow(Busy):
    """Takes a time of which nothing was reckoned."""

    def __init__(self, share: Share, log: list[str], name: str, time: Time, takes: float) -> None:
        super().__init__(share, log, name, turns=1, work=1.0)
        self.time, self.takes = time, takes

    def take_turn(self) -> None:
        self.log.append(self.name)
        self.time.now += self.takes


async def test_a_turn_ends_when_its_time_is_over() -> None:
    time, log = Time(), list[str]()
    share = Share(time)
    for name in "abcde":
        share.wait(Slow(share, log, name, time, TURN_SECONDS * 0.501))

    assert await turns(log) == [list("ab"), list("cd"), ["e"]]


async def test_what_a_turn_took_beyond_its_share_is_missing_in_the_next() -> None:
    time, log = Time(), list[str]()
    share = Share(time)
    for name in "abcdefgh":
        share.wait(Slow(share, log, name, time, TURN_SECONDS * 0.251))
    seen: list[str] = []
    for others in (0.5, 1.0, 9.0, 0.0):
        before = len(log)
        await asyncio.sleep(0)
        seen.append("".join(log[before:]))
        # Sockets are read, and answers written.
        time.now += TURN_SECONDS * others

    assert seen == ["abcd", "ef", "g", "h"]


@pytest.mark.parametrize(("others", "strained"), [(0.98, False), (1.02, True)])
async def test_a_turn_is_strained_where_the_one_before_took_longer_than_all_of_theirs(
    others: float,
    strained: bool,  # noqa: FBT001 (a parameter)
) -> None:
    time, log = Time(), list[str]()
    share = Share(time)
    for name in "abcd":
        share.wait(Slow(share, log, name, time, TURN_SECONDS * 2))
    seen: list[bool] = []
    for _ in range(5):
        await asyncio.sleep(0)
        seen.append(share.is_strained)
        time.now += TURN_SECONDS * others

    # With nobody before the first, and nobody waiting at the last.
    assert seen == [False, strained, strained, strained, False]


async def test_nobody_begins_when_the_time_of_a_turn_is_over() -> None:
    time = Time()
    share = Share(time)
    seen = [share.is_over]
    for step in (0.99, 0.02):
        time.now += TURN_SECONDS * step
        seen.append(share.is_over)
    await asyncio.sleep(0)
    seen.append(share.is_over)

    assert seen == [False, False, True, False]


async def test_time_in_which_nobody_waits_counts_for_nobody() -> None:
    time, log = Time(), list[str]()
    share = Share(time)
    share.wait(Slow(share, log, "a", time, 0.0))
    await turns(log)

    time.now += 3600.0
    for name in "bcd":
        share.wait(Slow(share, log, name, time, TURN_SECONDS * 0.4))

    assert await turns(log) == [["b", "c", "d"]]
