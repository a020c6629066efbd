"""The seams of the data path: what an exchange, a wire format and a listener know of each other.

::

    downstream codec ──▶ Exchange (RequestSink)      Exchange ──▶ upstream codec (UpstreamCodec)
    downstream codec ◀── Exchange (DownstreamCodec)  Exchange ◀── upstream codec (ResponseSink)

Each codec is implemented once per wire format.  Rules that hold for all of them:

* Everything is a plain call, made in order, on the loop's thread; nobody awaits.
* Data is collected until ``flush`` or the end, so that a head and the bytes that came with it
  leave in one write (one TLS record); whoever delivers a segment flushes after it.
* ``pause_…`` and ``resume_…`` travel against the data and may be called at any time.
* After ``…_end``, ``gone``, ``failed``, ``abort`` or ``cancel`` a half is silent.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from proxy.errors import ProxyError
from proxy.plane.head import NOBODY, RequestHead, ResponseHead
from proxy.plane.http2.share import Share
from proxy.plane.http2.tolls import Allowance
from proxy.plane.state import State
from proxy.plane.sweeper import Sweeper

UNCONNECTED: Final = asyncio.Transport()
"""Stands for a connection's transport until it has one."""


class DownstreamCodec(Protocol):
    """What an exchange asks of the connection (or stream) that the caller is on."""

    protocol: str
    """``h1`` or ``h2``: a label of the metrics."""

    def write_informational(self, head: ResponseHead) -> None:
        """Send a 1xx; ignored where the caller cannot understand it."""

    def write_head(self, head: ResponseHead) -> None:
        """Send the final head, or 101 whereupon the connection is a tunnel."""

    def write_whole(self, head: ResponseHead, body: bytes) -> None:
        """Send a whole answer to a request that is whole: `write_head` to `write_end` in one."""

    def write_data(self, data: bytes) -> None:
        """Send a part of the body."""

    def write_end(self, trailers: bytes) -> None:
        """End the response; `trailers` is a field block.  In a tunnel: half-close."""

    def flush(self) -> None:
        """Let what was written leave."""

    def abort(self) -> None:
        """Cut: the caller must see that the response is not whole."""

    def close(self) -> None:
        """End a tunnel both of whose halves have ended."""

    def pause_request(self) -> None:
        """Stop reading the request's body."""

    def resume_request(self) -> None:
        """Go on reading it."""


class RequestSink(Protocol):
    """What the downstream codec delivers to: the exchange's first half."""

    def start(self, *, ended: bool) -> None:
        """Begin; `ended` where the request has no body.  May answer before it returns."""

    def request_data(self, data: bytes) -> None:
        """Part of the body, as it came; `request_flush` lets it leave."""

    def request_end(self, trailers: bytes) -> None:
        """The request is whole.  In a tunnel: the caller half-closed."""

    def request_flush(self) -> None:
        """What was delivered so far shall leave."""

    def gone(self) -> None:
        """The caller went away: nothing can be delivered to it any more."""

    def broken(self, error: ProxyError) -> None:
        """The rest of the request is malformed or too large."""

    def pause_response(self) -> None:
        """The caller reads more slowly than the upstream sends."""

    def resume_response(self) -> None:
        """The caller has caught up."""


class UpstreamCodec(Protocol):
    """What an exchange asks of the connection (or stream) that the upstream is on."""

    reused: bool
    """Whether it served an exchange before: then it may have died unnoticed."""
    answered: bool
    """Whether any byte of an answer to the current attempt came."""

    @property
    def wrote(self) -> bool:
        """Whether any byte of the current attempt left."""

    def send_head(
        self,
        sink: ResponseSink,
        head: RequestHead,
        *,
        target: bytes,
        authority: bytes,
        fields: bytes,
    ) -> None:
        """Begin an attempt whose answer goes to `sink`.

        `head` is the caller's; `target`, `authority` and `fields`, a field block with the
        identity header last, are what the upstream gets in place of its own.
        """

    def begin_upload(self) -> None:
        """Note, after `send_head`, that the end of the request may be long in coming."""

    def send_data(self, data: bytes) -> None:
        """Send a part of the body."""

    def send_end(self, trailers: bytes) -> None:
        """End the request.  In a tunnel: half-close."""

    def flush(self) -> None:
        """Let what was sent leave."""

    def cancel(self) -> None:
        """End the attempt at once; nothing more is delivered."""

    def close(self) -> None:
        """End a tunnel both of whose halves have ended."""

    def pause_response(self) -> None:
        """Stop reading the response."""

    def resume_response(self) -> None:
        """Go on reading it."""


class ResponseSink(Protocol):
    """What the upstream codec delivers to: the exchange's second half."""

    state: State

    def informational(self, head: ResponseHead) -> None:
        """A 1xx other than 101."""

    def response_head(self, head: ResponseHead) -> None:
        """The final head, or 101."""

    def response_whole(self, head: ResponseHead, body: bytes) -> None:
        """The whole answer, below 400, to a request that is whole; in place of all the others.

        Most answers come so, and one call costs less than four.
        """

    def response_data(self, data: bytes) -> None:
        """Part of the body, as it came; `response_flush` lets it leave."""

    def response_end(self, trailers: bytes) -> None:
        """The response is whole.  In a tunnel: the upstream half-closed."""

    def response_flush(self) -> None:
        """What was delivered so far shall leave."""

    def failed(self, error: ProxyError) -> None:
        """The attempt failed; nothing more of it is delivered."""

    def broken(self, error: ProxyError) -> None:
        """The exchange cannot go on, and must not be repeated."""

    def collapse(self) -> None:
        """Cut what the caller still waits for: after an exception nobody knows what came of it."""

    def pause_request(self) -> None:
        """The upstream reads more slowly than the caller sends."""

    def resume_request(self) -> None:
        """The upstream has caught up."""


class Connection(Protocol):
    """A caller's connection, in whatever format it speaks."""

    @property
    def is_busy(self) -> bool:
        """Whether an exchange, or a response that has not left yet, is on it."""

    def drain(self) -> None:
        """Let the caller know that it should go elsewhere, where it can be told at once."""

    def shut(self) -> None:
        """End the connection because the process ends."""


class Host(Protocol):
    """What the codec needs of the listener that it serves."""

    head_limit: int
    """Bytes of the largest request head that any route takes."""
    allowance: Allowance
    """What callers in HTTP/2 may cost (see `proxy.plane.http2.tolls`)."""
    resets: Allowance | None
    """How many exchanges they may give up unanswered; None for any number."""
    share: Share
    """What they take together of a turn of the loop."""
    sweeper: Sweeper

    on_path: bool
    """Whether callers come through a Unix socket, and may have no host to name."""
    draining: bool
    """Whether connections shall end with their next response."""

    def opened(self, connection: Connection) -> None:
        """Count a connection that began."""

    def emptied(self) -> None:
        """Note that a connection has nothing under way any more."""

    def closed(self, connection: Connection) -> None:
        """Count a connection that ended."""

    def admit(self, codec: DownstreamCodec, head: RequestHead) -> RequestSink:
        """Make the exchange of a request; it is not started yet."""

    def crowded(self) -> Host:
        """Return what a connection is served by for which no descriptor is left."""

    def reject(self, codec: DownstreamCodec, error: ProxyError, head: RequestHead = NOBODY) -> None:
        """Answer bytes that are no request; `head` is what can be known of it."""
