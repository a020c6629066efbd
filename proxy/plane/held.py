"""An error response that is kept from the caller while it is found out who made it.

Google's front end answers in a service's place.  Its 401 means that the container never saw the
request: another token is fetched, and if one comes, the exchange is repeated.  Other pages of
its, and a 401 that remains, are explained to callers that are to read that.  What an application
answers goes on to the caller as it came.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Final, Protocol, final

from proxy.errors import PlatformError
from proxy.identity.token import Token
from proxy.plane.acquire import Pursuit
from proxy.plane.destination import Destination
from proxy.plane.destinations import OUTAGES, Choice
from proxy.plane.front_end import (
    PAGE_BYTES,
    explain,
    is_api_refusal,
    is_described,
    is_platform,
    may_be_api_refusal,
    may_become_page,
)
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
    platform_error: PlatformError | None
    """Set where the front end made the answer."""

    @property
    def is_repeatable(self) -> bool:
        """Whether the request is whole and at hand."""

    def pursuit(self) -> Pursuit:
        """Return the wait for what another attempt needs."""

    def hold_for(self, step: Callable[[], Coroutine[None, None, None]]) -> None:
        """Do `step` as the exchange's task; the response is not read meanwhile."""

    def repeat(self) -> None:
        """Drop the held response and make another attempt."""

    @property
    def choice(self) -> Choice | None:
        """What it has tried of several destinations; None where the route has one."""

    def repeats_status(self, head: ResponseHead) -> bool:
        """Begin another attempt after a status that the route repeats; return whether."""

    def explain(self, page: ResponseHead, error: PlatformError) -> bool:
        """Answer with `error` instead of a page if the caller is to read that; return whether."""

    def release(self, head: ResponseHead) -> None:
        """Begin the response to the caller."""

    def response_data(self, data: bytes) -> None:
        """Pass on a part of the body."""

    def response_end(self, trailers: bytes) -> None:
        """Pass on the end."""

    def response_flush(self) -> None:
        """Let what was passed on leave."""


UNAUTHORIZED: Final = 401  # RFC 9110, 15.5.2

HOLD_SECONDS: Final = 1.0
"""How long a page may take to come whole: it is in one packet with its head, mostly."""


@final
class Held:
    """One response, its head and as much of its body as has come."""

    __slots__ = (
        "_body",
        "_decided",
        "_ended",
        "_exchange",
        "_head",
        "_late",
        "_trailers",
    )

    def __init__(self, exchange: Holder, head: ResponseHead) -> None:
        self._exchange = exchange
        self._head = head
        self._body = bytearray()
        self._ended = False
        self._trailers = b""
        self._decided = False
        self._late = False

    def data(self, data: bytes) -> None:
        """Keep a part of the body."""
        self._body += data

    def end(self, trailers: bytes) -> None:
        """Note that the response is whole, and decide."""
        self._ended = True
        self._trailers = trailers
        self.decide()

    def overdue(self) -> None:
        """Decide with what has come: the caller has waited long enough."""
        self._late = True
        self.decide()

    def decide(self) -> None:
        """Do what follows, as soon as enough has come to tell whose answer it is; once."""
        if self._decided or not self._is_decidable():
            return
        self._decided = True
        exchange, head = self._exchange, self._head
        body = bytes(self._body[: PAGE_BYTES + 1])
        is_page = is_platform(head, body)
        if exchange.choice is not None:
            exchange.choice.answered(by_platform=is_page and head.status in OUTAGES)
        if is_page:
            route, token = exchange.route.towards(exchange.destination), exchange.token
            exchange.platform_error = explain(head.status, route, token)
        is_refused = is_page or is_described(head) or is_api_refusal(head, body, exchange.token)
        if is_refused and head.status == UNAUTHORIZED and self._seeks_token():
            return
        if exchange.repeats_status(head):
            exchange.platform_error = None
        else:
            self._answer()

    def _is_decidable(self) -> bool:
        if self._ended or self._late or len(self._body) > PAGE_BYTES:
            return True
        if is_described(self._head):
            return (self._head.length or 0) > PAGE_BYTES
        if may_be_api_refusal(self._head, self._exchange.token):
            return False
        return not may_become_page(self._body)

    def _seeks_token(self) -> bool:
        """Have another token fetched; return whether the response waits for it."""
        exchange = self._exchange
        token, cache = exchange.token, exchange.destination.token_cache
        if token is None or cache is None or not exchange.replaces_token:
            return False
        exchange.replaces_token = False
        if not exchange.is_repeatable:
            cache.seek_another(token, exchange.destination.cause)
            return False
        exchange.hold_for(partial(self._reauthenticate, token))
        return True

    async def _reauthenticate(self, refused: Token) -> None:
        """Fetch once; repeat with the new token if there is one, else the 401 is the answer."""
        exchange = self._exchange
        token = await exchange.pursuit().another_token(refused)
        exchange.task = None
        if token is None:
            self._answer()
            return
        exchange.platform_error = None
        exchange.route.stats.retries["token_refused"] += 1
        exchange.repeat()

    def _answer(self) -> None:
        """Give the caller the page, or what it means: only of one that has come whole.

        What an API says of a token is in a language that its callers know.
        """
        exchange = self._exchange
        error = exchange.platform_error
        fits = self._ended and len(self._body) <= PAGE_BYTES
        if error is None or not fits or not exchange.explain(self._head, error):
            self._release()

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
