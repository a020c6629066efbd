"""An error response that is kept from the caller while it is found out who made it.

Google's front end answers in a service's place.  Its 401 means that the container never saw the
request: another token is fetched, and if one comes, the exchange is repeated.  What an
application answers goes on to the caller as it came.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Protocol, final

from proxy.identity.token import Token
from proxy.plane.acquire import Pursuit
from proxy.plane.destination import Destination
from proxy.plane.front_end import PAGE_BYTES, is_described, is_platform
from proxy.plane.head import ResponseHead
from proxy.plane.prepared import PreparedRoute


class Holder(Protocol):
    """What a held response asks of its exchange."""

    route: PreparedRoute
    destination: Destination
    token: Token | None
    """The one that the attempt carried."""
    replaces_token: bool
    """Whether another token may still be tried: once in an exchange."""
    task: asyncio.Task[None] | None

    @property
    def is_repeatable(self) -> bool:
        """Whether the request is whole and at hand."""

    def pursuit(self) -> Pursuit:
        """Return the wait for what another attempt needs."""

    def hold_for(self, step: Callable[[], Coroutine[None, None, None]]) -> None:
        """Do `step` as the exchange's task; the response is not read meanwhile."""

    def repeat(self) -> None:
        """Drop the held response and make another attempt."""

    def release(self, head: ResponseHead) -> None:
        """Begin the response to the caller."""

    def response_data(self, data: bytes) -> None:
        """Pass on a part of the body."""

    def response_end(self, trailers: bytes) -> None:
        """Pass on the end."""

    def response_flush(self) -> None:
        """Let what was passed on leave."""


@final
class Held:
    """One response, its head and as much of its body as has come."""

    __slots__ = ("_body", "_decided", "_ended", "_exchange", "_head", "_trailers")

    def __init__(self, exchange: Holder, head: ResponseHead) -> None:
        self._exchange = exchange
        self._head = head
        self._body = bytearray()
        self._ended = False
        self._trailers = b""
        self._decided = False

    def data(self, data: bytes) -> None:
        """Keep a part of the body."""
        self._body += data

    def end(self, trailers: bytes) -> None:
        """Note that the response is whole, and decide."""
        self._ended = True
        self._trailers = trailers
        self.decide()

    def decide(self) -> None:
        """Do what follows, as soon as enough has come to tell whose answer it is; once."""
        if self._decided or not self._is_decidable():
            return
        self._decided = True
        if not (self._is_platform() and self._seeks_token()):
            self._release()

    def _is_decidable(self) -> bool:
        enough = self._ended or len(self._body) >= PAGE_BYTES
        return enough or is_described(self._head) or self._is_platform()

    def _is_platform(self) -> bool:
        return is_platform(self._head, bytes(self._body[:PAGE_BYTES]), self._exchange.token)

    def _seeks_token(self) -> bool:
        """Have another token fetched; return whether the response waits for it."""
        exchange = self._exchange
        token, cache = exchange.token, exchange.destination.token_cache
        if token is None or cache is None or not exchange.replaces_token:
            return False
        exchange.replaces_token = False
        if not exchange.is_repeatable:
            cache.seek_another(token, exchange.route.name)
            return False
        exchange.hold_for(partial(self._reauthenticate, token))
        return True

    async def _reauthenticate(self, refused: Token) -> None:
        """Fetch once; repeat with the new token if there is one, else pass on the 401."""
        exchange = self._exchange
        token = await exchange.pursuit().another_token(refused)
        exchange.task = None
        if token is None:
            self._release()
            return
        exchange.route.stats.retries["token_refused"] += 1
        exchange.repeat()

    def _release(self) -> None:
        """Pass on the response as it came."""
        exchange = self._exchange
        exchange.release(self._head)
        if self._body:
            exchange.response_data(bytes(self._body))
        if self._ended:
            exchange.response_end(self._trailers)
        else:
            exchange.response_flush()
