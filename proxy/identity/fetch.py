"""One fetch at a time: runs a source, bounds it in time, and reports what came of it once."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Callable

from proxy.clock import Clocks
from proxy.deadlines import Timer
from proxy.identity.access_token import Scopes, Wanted, kind_of, read_access_token
from proxy.identity.source import (
    AccessSource,
    FixedAudience,
    TokenSource,
    TokenSourceError,
    no_access_tokens,
)
from proxy.identity.token import Token, check_time_left, read_token

log = logging.getLogger(__name__)

FETCH_LIMIT = 20.0
"""Seconds after which a fetch is given up, whatever its source; sources have shorter limits of
their own, with better explanations."""


Later = Callable[[float, Callable[[], object]], Timer]
"""Calls back after so many seconds; an argument, so that tests control time."""

Cause = str | tuple[str, str]
"""Who has a token fetched, for the numbers: a route, or one of its destinations by both names."""

OnEnd = Callable[[Cause, Token | TokenSourceError, float], object]
"""Told how a fetch ended: what caused it, a token that was accepted or why there is
none, and how long it took in seconds."""


class Fetch:
    """The fetch of what is wanted of one source.  Its task belongs to nobody who waits for it."""

    __slots__ = (
        "_began",
        "_clocks",
        "_closed",
        "_gate",
        "_later",
        "_limit",
        "_on_end",
        "_source",
        "_task",
        "_wanted",
    )

    def __init__(
        self,
        wanted: Wanted,
        source: TokenSource,
        on_end: OnEnd,
        *,
        clocks: Clocks,
        later: Later,
        gate: asyncio.Semaphore,
    ) -> None:
        """`on_end` is called once for each `start`.

        `gate` bounds how many fetches of `source` run at once.
        """
        self._wanted = wanted
        self._source = source
        self._on_end = on_end
        self._clocks = clocks
        self._later = later
        self._gate = gate
        self._closed = False

        # For one fetch
        self._task: asyncio.Task[Token] | None = None
        self._limit: Timer | None = None
        self._began = 0.0

    @property
    def seconds(self) -> float:
        """How long the running, or the last, fetch has taken."""
        return self._clocks.steady() - self._began

    def start(self, cause: Cause) -> None:
        """Begin a fetch; none may be running."""
        self._began = self._clocks.steady()
        task = asyncio.get_running_loop().create_task(
            self._obtain(), name=f"fetch {kind_of(self._wanted)} for {self._wanted}"
        )
        task.add_done_callback(lambda done: self._ended(cause, done))
        self._task = task

    async def close(self) -> None:
        """End the running fetch, if any; `on_end` has been called when this returns."""
        self._closed = True
        task = self._task
        self._give_up()
        if task is not None:
            await asyncio.wait([task])

    async def _obtain(self) -> Token:
        async with self._gate:
            # From here on: waiting for other fetches of the source is not this one's fault.
            self._began = self._clocks.steady()
            self._limit = self._later(FETCH_LIMIT, self._give_up)
            return await self._ask(self._source, self._wanted)

    async def _ask(self, source: TokenSource, wanted: Wanted) -> Token:
        if isinstance(wanted, Scopes):
            if not isinstance(source, AccessSource):
                raise no_access_tokens()
            # Before asking: ``expires_in`` counts from the answer's making (RFC 6749, 5.1).
            now = self._clocks.wall()
            token = read_access_token(await source.authorize(wanted.names), wanted, now)
            # What took long may be over already, and would be fetched again and again.
            check_time_left(token.expires_at - self._clocks.wall())
            return token
        raw = await source.fetch(wanted)
        fixed = source.fixed_audience if isinstance(source, FixedAudience) else None
        return read_token(raw, wanted, self._clocks.wall(), fixed)

    def _give_up(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _ended(self, cause: Cause, task: asyncio.Task[Token]) -> None:
        limit, self._task, self._limit = self._limit, None, None
        result: Token | TokenSourceError
        try:
            if limit is not None:
                limit.cancel()
            result = self._result(task)
        except Exception as error:  # noqa: BLE001 (or nobody would be told, and no fetch begin any more)
            result = TokenSourceError(f"unexpected {type(error).__name__}")
        self._on_end(cause, result, self.seconds)

    def _result(self, task: asyncio.Task[Token]) -> Token | TokenSourceError:
        if task.cancelled():
            if self._closed:
                return TokenSourceError("the proxy is shutting down")
            return TokenSourceError(f"no answer within {FETCH_LIMIT:.0f} s", slow=True)
        error = task.exception()
        if error is None:
            return task.result()
        return error if isinstance(error, TokenSourceError) else _bug(error)


def _bug(error: BaseException) -> TokenSourceError:
    # The message could quote a token, so only the type and the places are told.
    places = "".join(traceback.format_tb(error.__traceback__))
    log.error("a token source failed with %s:\n%s", type(error).__name__, places)
    return TokenSourceError(
        f"unexpected {type(error).__name__}",
        hint="This is a bug of the proxy; please report it with the traceback from its log.",
    )
