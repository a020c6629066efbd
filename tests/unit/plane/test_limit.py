"""Places for connections: how many there are, and whose the next is."""

from __future__ import annotations

import math

import pytest

from proxy.plane.limit import ConnectionLimit


class SomePool:
    """Has idle connections, and some who wait for a place."""

    def __init__(self, limit: ConnectionLimit) -> None:
        self.limit = limit
        limit.share(self)
        self.waiting: list[int] = []
        self.idle = 0
        self.served: list[int] = []

    def wait(self) -> None:
        self.waiting.append(self.limit.arrive())

    def waits_since(self) -> float:
        return self.waiting[0] if self.waiting else math.inf

    def use_place(self) -> bool:
        if self.waiting:
            self.served.append(self.waiting.pop(0))
            return True
        return False

    def close_idle(self) -> bool:
        if not self.idle:
            return False
        self.idle -= 1
        self.limit.give_back()
        return True


@pytest.mark.parametrize(("most", "taken"), [(0, 10_000), (1, 1), (3, 3)])
def test_as_many_places_are_taken_as_there_are(most: int, taken: int) -> None:
    limit = ConnectionLimit(most)

    assert [limit.take() for _ in range(taken)] == [True] * taken
    assert limit.is_full is bool(most)
    assert limit.take() is not bool(most)


def test_a_place_that_is_given_back_is_free_again() -> None:
    limit = ConnectionLimit(1)
    limit.take()
    limit.give_back()

    assert limit.is_full is False
    assert limit.take() is True


def test_whoever_has_waited_longest_gets_it() -> None:
    limit = ConnectionLimit(1)
    one, two = SomePool(limit), SomePool(limit)
    limit.take()
    two.wait()
    one.wait()
    two.wait()
    assert limit.first() is two

    for _ in range(2):
        limit.give_back()

    assert (one.served, two.served, two.waiting) == ([2], [1], [3])
    assert limit.is_full is True


def test_an_idle_connection_gives_its_place_to_who_asks_and_to_nobody_else() -> None:
    limit = ConnectionLimit(1)
    one, two = SomePool(limit), SomePool(limit)
    limit.take()
    one.idle = 1
    two.wait()

    assert limit.take() is True
    assert (one.idle, two.served) == (0, [])
    assert limit.take() is False


def test_who_waits_is_given_the_places_of_idle_connections() -> None:
    limit = ConnectionLimit(2)
    one, two = SomePool(limit), SomePool(limit)
    limit.take()
    limit.take()
    for _ in range(3):
        two.wait()
    one.idle = 2

    limit.offer()

    assert (one.idle, two.served, two.waiting) == (0, [1, 2], [3])
