"""What many connections take together of a turn of the loop."""

from __future__ import annotations

import asyncio

from proxy.plane.http2.share import TURN_WORK, Share


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
    share, log = Share(), list[str]()
    for name in "abc":
        share.wait(Busy(share, log, name, turns=2, work=TURN_WORK))

    assert await turns(log) == [[name] for name in "abcabc"]


async def test_one_turn_is_for_as_many_as_it_is_enough_for() -> None:
    class Small(Busy):
        def take_turn(self) -> None:
            self.log.append(self.name)
            self.share.spend(TURN_WORK / 4)

    share, log = Share(), list[str]()
    for name in "abcdef":
        share.wait(Small(share, log, name, turns=1, work=1.0))

    assert await turns(log) == [list("abcd"), list("ef")]


async def test_one_of_those_who_come_first_and_one_of_the_others_go_on_together() -> None:
    share, log = Share(), list[str]()
    for name in "abc":
        share.wait(Busy(share, log, name, turns=1, work=TURN_WORK))
    for name in "12":
        share.wait(Busy(share, log, name, turns=1, work=0.0))

    assert await turns(log) == [["1", "a"], ["2", "b"], ["c"]]


async def test_the_next_turn_has_its_own_share() -> None:
    share = Share()
    share.spend(2 * TURN_WORK)
    assert share.left < 0

    await asyncio.sleep(0)

    assert share.left == TURN_WORK
