"""What arrives at an emulated server, for tests to look at, to wait for and to count."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import TypeVar

T = TypeVar("T")


class Records(list[T]):
    """A list that one can wait for: `add` appends and wakes whoever waits for its length.

    `limit` is how many are kept, None for all; then older ones go, a half of them at a time.
    """

    def __init__(self, limit: int | None = None) -> None:
        super().__init__()
        self.limit = limit
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []

    def add(self, record: T) -> None:
        """Append `record`."""
        self.append(record)
        if self.limit is not None and len(self) > self.limit:
            del self[: -(self.limit // 2)]
        for count, waiter in self._waiters:
            if len(self) >= count and not waiter.done():
                waiter.set_result(None)

    async def reached(self, count: int) -> None:
        """Return as soon as there are at least `count` records."""
        if len(self) >= count:
            return
        entry = count, asyncio.get_running_loop().create_future()
        self._waiters.append(entry)
        try:
            await entry[1]
        finally:
            self._waiters.remove(entry)


class InFlight:
    """How many requests are being answered at once, in all and for each key."""

    __slots__ = ("by_key", "peak", "peak_by_key", "total")

    def __init__(self) -> None:
        self.total = 0
        self.peak = 0
        self.by_key: Counter[str] = Counter()
        self.peak_by_key: Counter[str] = Counter()

    @contextlib.contextmanager
    def one(self, key: str) -> Iterator[None]:
        """Count one request for `key` while the context lasts."""
        self.total += 1
        self.by_key[key] += 1
        self.peak = max(self.peak, self.total)
        self.peak_by_key[key] = max(self.peak_by_key[key], self.by_key[key])
        try:
            yield
        finally:
            self.total -= 1
            self.by_key[key] -= 1
