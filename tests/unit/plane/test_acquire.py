"""What an exchange waits for before an attempt, and what it is told when that does not come."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from proxy.config.model import Limits, Timeouts
from proxy.errors import Overloaded
from proxy.identity.token import Token
from proxy.plane.acquire import Pursuit, rest
from proxy.plane.destination import Destination
from proxy.plane.gate import Gate
from proxy.plane.pools import Connector
from proxy.plane.prepared import PreparedRoute
from proxy.retry import Attempt

REFUSED = Token(value="refused", expires_at=0.0, email=None)
ANOTHER = Token(value="another", expires_at=0.0, email=None)


class Cache:
    """Stands for a token cache: notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []

    async def get(self, *question: object) -> Token:
        self.asked.append(question)
        return REFUSED

    async def another(self, *question: object) -> Token:
        self.asked.append(question)
        return ANOTHER


def pursuit(
    *, gate: Gate | None = None, cache: Cache | None = None, connect: float = 5.0
) -> Pursuit:
    config = SimpleNamespace(
        timeouts=Timeouts(connect=connect), limits=Limits(in_flight=1, queue=1)
    )
    route: Any = SimpleNamespace(name="orders", gate=gate, config=config)
    destination: Any = SimpleNamespace(token_cache=cache, cause="orders")
    return Pursuit(
        cast("PreparedRoute", route),
        cast("Destination", destination),
        Attempt(0, b"GET", replayable=True),
        lambda: 0.5,
        cast("Connector", None),
    )


async def test_a_route_without_a_gate_lets_in_whoever_comes() -> None:
    one = pursuit()

    for _ in range(1000):
        await one.enter()


async def test_whoever_enters_has_a_place_of_the_gate() -> None:
    gate = Gate(1, 1)
    await pursuit(gate=gate).enter()

    assert gate.inside == 1


async def test_where_the_queue_is_full_too_nobody_waits() -> None:
    gate = Gate(1, 1)
    await gate.enter()
    waiter = asyncio.ensure_future(gate.enter())
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="1 exchanges are in flight and 1 wait already") as refused:
        await pursuit(gate=gate).enter()

    assert refused.value.retry_after == 1
    gate.leave()
    await waiter


async def test_who_waits_too_long_for_a_place_is_told_how_long() -> None:
    gate = Gate(1, 1)
    await gate.enter()
    with pytest.raises(Overloaded, match=r"No place became free within 0\.01 s"):
        await pursuit(gate=gate, connect=0.01).enter()

    assert (gate.inside, gate.waiting) == (1, 0)


async def test_a_route_that_sends_no_token_waits_for_none() -> None:
    one = pursuit()

    assert await one.token() is None
    assert await one.another_token(REFUSED) is None


async def test_tokens_are_asked_for_in_the_name_of_the_destination_and_for_so_long() -> None:
    cache = Cache()
    one = pursuit(cache=cache, connect=3.0)

    assert await one.token() is REFUSED
    assert await one.another_token(REFUSED) is ANOTHER
    assert cache.asked == [("orders", 3.0), (REFUSED, "orders", 3.0)]


@pytest.mark.parametrize("seconds", [0.0, -1.0])
async def test_no_rest_does_not_even_give_a_turn_away(seconds: float) -> None:
    turns: list[str] = []
    asyncio.get_running_loop().call_soon(turns.append, "another's")
    await rest(seconds)

    assert turns == []
