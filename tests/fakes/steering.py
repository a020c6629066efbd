"""Time, a token source and tokens that a test holds in its hand."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
from collections.abc import Callable
from random import Random
from typing import Any

from proxy.clock import Clocks
from proxy.identity.cache import State, TokenCache
from proxy.identity.fetch import Cause
from proxy.identity.source import TokenSourceError

AUDIENCE = "https://orders-abc123-uc.a.run.app"
HOUR = 3600.0
EMAIL = "caller@project.iam.gserviceaccount.com"

_serial = itertools.count()


def jitter() -> Random:
    """Return a jitter that is the same in every run."""
    return Random(7)  # noqa: S311 (jitter, not a secret)


def part(value: Any) -> str:
    """Return one part of a JWT."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def jwt(exp: Any, aud: Any = AUDIENCE, **claims: Any) -> str:
    """Return a token that no other call returns; its signature is none."""
    claims = {"aud": aud, "exp": exp, "email": EMAIL, "jti": next(_serial), **claims}
    signature = b"not a signature, only bytes"
    return ".".join([part({"alg": "RS256"}), part(claims), part(signature)])


class _Timer:
    def __init__(self, due: float, callback: Callable[[], object]) -> None:
        self.due = due
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Time:
    """Both clocks and all timers; nothing happens but by `advance` and `jump`."""

    def __init__(self) -> None:
        self.wall = 1_800_000_000.0
        self.steady = 1000.0
        self.clocks = Clocks(wall=lambda: self.wall, steady=lambda: self.steady)
        self._timers: list[_Timer] = []

    def later(self, delay: float, callback: Callable[[], object]) -> _Timer:
        """Call back once `advance` has gone that far."""
        assert delay >= 0
        timer = _Timer(self.steady + delay, callback)
        self._timers.append(timer)
        return timer

    @property
    def pending(self) -> list[_Timer]:
        """The timers that have neither fired nor been cancelled."""
        self._timers = [timer for timer in self._timers if not timer.cancelled]
        return self._timers

    def jump(self, seconds: float) -> None:
        """Set the wall clock, as an operator or NTP does; no time passes."""
        self.wall += seconds

    def sleep(self, seconds: float) -> None:
        """Let time pass without a single callback, as when the CPU is withdrawn."""
        self.steady += seconds
        self.wall += seconds

    async def advance(self, seconds: float) -> None:
        """Let time pass; timers fire at their time, and what they wake runs."""
        end = self.steady + seconds
        while due := [timer for timer in self.pending if timer.due <= end]:
            timer = min(due, key=lambda timer: timer.due)
            self.sleep(max(0.0, timer.due - self.steady))
            self._timers.remove(timer)
            timer.callback()
            await settle()
        self.sleep(end - self.steady)
        await settle()


async def settle() -> None:
    """Let everything run that can run without time passing."""
    for _ in range(12):
        await asyncio.sleep(0)


class Source:
    """A token source whose every fetch waits for the test to end it."""

    def __init__(self) -> None:
        self.fetches: list[asyncio.Future[str]] = []
        self.closed = False

    @property
    def running(self) -> list[asyncio.Future[str]]:
        """The fetches that have not ended."""
        return [fetch for fetch in self.fetches if not fetch.done()]

    def describe(self) -> str:
        return "scripted source"

    async def fetch(self, audience: str) -> str:
        assert audience == AUDIENCE
        fetch: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.fetches.append(fetch)
        return await fetch

    async def account(self) -> str | None:
        return EMAIL

    async def close(self) -> None:
        self.closed = True

    async def succeed(self, token: str) -> None:
        """Let the running fetch bring `token`."""
        [fetch] = self.running
        fetch.set_result(token)
        await settle()

    async def fail(
        self, detail: str = "connection refused", *, retryable: bool = True, slow: bool = False
    ) -> None:
        """Let the running fetch fail."""
        [fetch] = self.running
        fetch.set_exception(
            TokenSourceError(detail, hint="do this", retryable=retryable, slow=slow)
        )
        await settle()


class Rig:
    """A cache with everything around it."""

    def __init__(self, source: Source | None = None, gate: asyncio.Semaphore | None = None) -> None:
        self.time = Time()
        self.source = source or Source()
        self.seen: list[tuple[Cause, str, float]] = []
        self.then: Callable[[], object] = lambda: None
        """Called when a fetch has ended, before anybody who waits for it runs."""
        self.cache = TokenCache(
            AUDIENCE,
            self.source,
            clocks=self.time.clocks,
            jitter=jitter(),
            gate=gate or asyncio.Semaphore(4),
            later=self.time.later,
            on_fetch=self._ended,
        )

    def _ended(self, cause: Cause, outcome: str, seconds: float) -> None:
        self.seen.append((cause, outcome, seconds))
        self.then()

    def token(self, lifetime: float = HOUR, **claims: Any) -> str:
        """Return a token that lives so long from now."""
        return jwt(self.time.wall + lifetime, **claims)

    async def ask(self, patience: float = 10.0, route: str = "orders") -> asyncio.Task[str]:
        """Start a caller who wants a token; the result is its value."""
        task = asyncio.get_running_loop().create_task(self._value(patience, route))
        await settle()
        return task

    async def _value(self, patience: float, route: str) -> str:
        return (await self.cache.get(route, patience)).value

    async def good(self, lifetime: float = HOUR) -> str:
        """Bring the cache into the state good; return the token."""
        token = self.token(lifetime)
        caller = await self.ask()
        await self.source.succeed(token)

        assert await caller == token
        return token

    def state(self) -> State:
        """Return where the cache stands."""
        return self.cache.state

    def expires_at(self) -> float | None:
        """Return when the token that is given out now expires."""
        return self.cache.expires_at

    def now(self) -> str | None:
        """Return the value that a request would carry at this moment."""
        token = self.cache.current("orders")
        return None if token is None else token.value
