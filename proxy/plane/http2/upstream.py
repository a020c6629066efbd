"""HTTP/2 towards the upstream: one connection, as many streams as it allows."""

from __future__ import annotations

import asyncio
import math
import select
from typing import Protocol, cast

from h2.events import RemoteSettingsChanged

from proxy.deadlines import Within
from proxy.errors import ProxyError, UpstreamConnectFailed, UpstreamMalformed, UpstreamReset
from proxy.plane.http2.asking import AskingStream
from proxy.plane.http2.endpoint import Endpoint
from proxy.plane.http2.fields import Fields
from proxy.plane.http2.standard import LAST_STREAM, Code, ConnectionFault
from proxy.plane.http2.tolls import LENIENCY, TALK, Tolls
from proxy.plane.sweeper import Sweeper
from proxy.plane.tls import TlsTransport
from proxy.plane.unread import unread

# One read buffer for the process, as HTTP/1.1 has (see `proxy.plane.http1.upstream`).
_BUFFER = memoryview(bytearray(64 * 1024))

# RFC 9113, 6.5.2: an upstream that names no limit has none, and should not name less than 100.
# Beyond 100 another connection is better than one that everything depends on.
USUAL_STREAMS = 100

# Seconds of silence, while streams are open, before each ping. gRPC servers take offence at the
# third ping within five minutes in which they had nothing to send, so the gaps grow.
_PING_AFTER = (10.0, 60.0, 240.0, 330.0)

# Length and type of the first frame (RFC 9113, 4.1), which has to be SETTINGS.
_KNOWN_AT = 4
_SETTINGS = 4

PING_TIMEOUT = 10.0
"""Seconds that an upstream may take to answer a ping before it is given up."""


class OnlyHttp1(Exception):
    """The upstream does not speak HTTP/2; the text says how that was found out."""

    def __init__(self, text: str, *, is_certain: bool) -> None:
        super().__init__(text)
        self.is_certain = is_certain
        """Whether the upstream said so, rather than behaved as if."""


class Keeper(Protocol):
    """Who owns the connection: the pool."""

    def freed(self, connection: Http2Upstream) -> None:
        """Note that a stream has ended, or that more are allowed."""

    def retired(self, connection: Http2Upstream) -> None:
        """Note that the connection takes no more streams."""

    def lost(self, connection: Http2Upstream) -> None:
        """Forget a connection that is closed."""


class Http2Upstream(Endpoint, asyncio.BufferedProtocol):
    """A connection to the upstream; its streams are the upstream codecs."""

    __slots__ = (
        "_asked_at", "_greeting", "_keeper", "_next", "_pings", "_pongs", "_silence", "active",
        "deadline", "heard_at", "idle_since", "is_doubtful", "is_leaving", "is_reused", "limit",
        "most_streams", "ready", "scheme", "takes_streams",
    )  # fmt: skip

    def __init__(self, keeper: Keeper, head_limit: int, sweeper: Sweeper, *, tls: bool) -> None:
        tolls = Tolls(sweeper.clock, leniency=LENIENCY)
        super().__init__({}, head_limit, sweeper, tolls, client=True)
        self._keeper = keeper
        self.scheme = b"https" if tls else b"http"
        self.ready: asyncio.Future[ProxyError | OnlyHttp1 | None] = (
            asyncio.get_running_loop().create_future()
        )
        """Done when the upstream has said how many streams it allows; or why there are none."""
        self.limit = 0
        """How many streams the upstream says it allows at once."""
        self.most_streams = 0
        """How many are opened at once: fewer, where it refused some."""
        self.active = 0
        """How many places are taken."""
        self.is_reused = False
        """Whether a stream has been served."""
        self.takes_streams = True
        """Whether a stream that has a place can still be sent."""
        self.is_leaving = False
        """Whether nobody gets a place any more."""
        self.is_doubtful = False
        """Whether a ping was not answered in time."""
        self.idle_since = 0.0
        self.heard_at = 0.0
        """When something came."""
        self.deadline = math.inf
        self._next = 1
        self._greeting = b""
        """The first bytes that came, until they tell whether the upstream speaks HTTP/2."""
        self._asked_at = -math.inf
        """When the last ping was sent."""
        self._silence = 0
        """How many pings were sent since a stream got something."""
        self._pings = 0
        self._pongs: dict[bytes, asyncio.Future[bool]] = {}
        """By the data of each ping under way: whether it was answered."""

    # --- the pool's side -----------------------------------------------------------------

    @property
    def has_place(self) -> bool:
        """Whether a stream can be opened now."""
        return self.active < self.most_streams and not self.is_leaving

    def open(self) -> AskingStream:
        """Take a place."""
        self.active += 1
        if self.active == 1:
            self._listen()
        return AskingStream(self)

    async def verify(self, timeout: float) -> bool:
        """Ask the upstream whether it is there; return whether it answers in `timeout` seconds."""
        pong = next(reversed(self._pongs.values())) if self._pongs else self._ping()
        try:
            async with Within(timeout):
                # Shielded: others may wait for the same answer.
                return await asyncio.shield(pong)
        except TimeoutError:
            self.is_doubtful = True
            return False

    def has_news(self) -> bool:
        """Ask the kernel whether something has come that nobody has read yet."""
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Close neatly: nothing is open any more."""
        if not self.is_closed:
            self._end(None)
            self._say_goodbye(Code.NO_ERROR)

    def retire(self) -> None:
        """Give no more places; close when the last stream has ended."""
        if not self.is_leaving:
            self.is_leaving = True
            self._keeper.retired(self)
        if not self.active:
            self.close()

    # --- the transport's side ------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet the upstream, unless it has declined to speak HTTP/2 (RFC 7301)."""
        self._transport = cast("asyncio.Transport", transport)
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() != "h2":
            self.is_closed = True
            self.ready.set_result(OnlyHttp1("it offers only HTTP/1.1 over TLS", is_certain=True))
            return
        self.heard_at = self.sweeper.clock()
        self.sweeper.add(self)
        self.begin()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 (asyncio's signature)
        """Lend the process's read buffer."""
        return _BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        """Take `nbytes` from the buffer."""
        self._hear(_BUFFER[:nbytes].tobytes())

    def _hear(self, data: bytes) -> None:
        """Take one segment."""
        if self.is_closed:
            return
        self.heard_at = self.sweeper.clock()
        if not self.ready.done() and self._is_other_protocol(data):
            self.drop()
            return
        self.take_segment(data)

    def _is_other_protocol(self, data: bytes) -> bool:
        """Tell whether what begins with `data` is no settings, and note what that means.

        RFC 9113, 3.4: settings come first.  Text does not even look like a frame: its first byte
        would be the highest of a length that nobody may send.  Where TLS has settled on HTTP/2,
        what comes instead of it is a fault.
        """
        if self.scheme == b"https" or len(self._greeting) == _KNOWN_AT:
            return False
        self._greeting = (self._greeting + data)[:_KNOWN_AT]
        is_text = self._greeting[0] != 0
        if not is_text and (len(self._greeting) < _KNOWN_AT or self._greeting[-1] == _SETTINGS):
            return False
        text = "it answered HTTP/2's preface in another protocol"
        self.ready.set_result(OnlyHttp1(text, is_certain=is_text))
        return True

    def eof_received(self) -> bool:
        """Take the upstream's FIN: nothing more can come."""
        self.take_rest()
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's signature)
        """Take the end of the connection."""
        self.take_rest()
        if not (self.is_closed or isinstance(self._transport, TlsTransport)):  # It has done so.
            for data in unread(self._transport):
                self._hear(data)
        if not self.ready.done():
            self.ready.set_result(self._unready())
        self._end(None)

    def on_deadline(self, now: float) -> None:
        """Ping an upstream that is silent; give up one that does not answer."""
        if self._pongs and self.heard_at < self._asked_at:
            self.deadline = self._asked_at + PING_TIMEOUT
            if now >= self.deadline:
                self._end(UpstreamReset("The upstream does not answer any more."))
                self._transport.abort()
        elif not self.active:
            self.deadline = math.inf
        elif now >= self.heard_at + self._patience():
            self._silence += 1
            _ = self._ping()
        else:
            self._listen()

    # --- the endpoint's side -------------------------------------------------------------

    def number(self, stream: AskingStream) -> None:
        """Give a stream its number: its head is about to leave."""
        stream.id = self._next
        self._next += 2
        self.adopt(stream)
        if self._next > LAST_STREAM:
            self.retire()

    def served(self) -> None:
        """Note that a stream got its whole answer."""
        self.is_reused = True
        self._silence = 0
        if self.most_streams < self.limit:
            self.most_streams += 1

    def fail(self, fault: ConnectionFault) -> None:
        """Tell the upstream what it did, and close."""
        if not self.is_closed:
            self._end(UpstreamMalformed(f"The upstream broke the HTTP/2 protocol: {fault}"))
            self._say_goodbye(fault.code, f"{fault}")

    def drop(self) -> None:
        """Close at once."""
        self._end(UpstreamReset("The upstream does not read."))
        self._transport.abort()

    def _on_fields(self, stream: int, fields: Fields, *, ended: bool) -> None:
        found = self.streams.get(stream)
        if found is None:
            # h2 lets a server open a stream that it has not promised.
            raise ConnectionFault(Code.PROTOCOL_ERROR, "The upstream opens a stream.")
        cast("AskingStream", found).take_fields(fields, ended=ended)

    def _on_reset(self, stream: int, code: int) -> None:
        if code == Code.REFUSED_STREAM:
            # It takes fewer than it says: the others that are open now, for the time being.
            self.most_streams = max(1, min(self.most_streams, self.active - 1))
        cast("AskingStream", self.streams[stream]).take_reset(code)

    def _on_goaway(self, last: int) -> None:
        """Open no more; what the upstream has not begun begins elsewhere (RFC 9113, 6.8)."""
        self.takes_streams = False
        self.retire()
        for number, stream in list(self.streams.items()):
            if number > last:
                cast("AskingStream", stream).refused()

    def _on_pong(self, data: bytes) -> None:
        pong = self._pongs.pop(data, None)
        if pong is None:
            self.tolls.charge(TALK)
            return
        self.is_doubtful = False
        if not pong.done():
            pong.set_result(True)

    def _on_settings(self, event: RemoteSettingsChanged) -> None:
        first = not self.ready.done()
        if first:
            self.limit = self.most_streams = USUAL_STREAMS
        super()._on_settings(event)
        if first:
            self.ready.set_result(None)
        else:
            self._keeper.freed(self)

    def _on_stream_limit(self, limit: int) -> None:
        self.limit = self.most_streams = limit

    def _on_stream_gone(self) -> None:
        self.active -= 1
        if self.is_closed:
            return
        if not self.active:
            self.idle_since = self.heard_at
        if self.is_leaving and not self.active:
            self.close()
        else:
            self._keeper.freed(self)

    def is_idle(self, stream: int) -> bool:
        """Tell whether a stream of this number was never opened."""
        return stream >= self._next or not stream & 1

    # --- silence and ends ----------------------------------------------------------------

    def _patience(self) -> float:
        return _PING_AFTER[min(self._silence, len(_PING_AFTER) - 1)]

    def _listen(self) -> None:
        """Look again when the upstream will have been silent for too long."""
        self.deadline = self.heard_at + self._patience()

    def _ping(self) -> asyncio.Future[bool]:
        self._pings += 1
        data = self._pings.to_bytes(8, "big")
        pong = self._pongs[data] = asyncio.get_running_loop().create_future()
        self._asked_at = self.sweeper.clock()
        self.deadline = self._asked_at + PING_TIMEOUT
        self.connection.ping(data)
        self.flush()
        return pong

    def _unready(self) -> ProxyError | OnlyHttp1:
        """Return what to make of a connection that ended before it began."""
        if self.scheme == b"https":
            return UpstreamConnectFailed("The upstream closed the connection at once.")
        return OnlyHttp1("it closes the connection when addressed in HTTP/2", is_certain=False)

    def _end(self, error: ProxyError | None) -> None:
        """Fail everything that depends on the connection."""
        if self.is_closed:
            return
        self.is_closed = True
        self.is_leaving = True
        self.takes_streams = False
        self.sweeper.discard(self)
        if not self.ready.done():
            self.ready.set_result(UpstreamConnectFailed(error.detail if error else "It closed."))
        for pong in self._pongs.values():
            if not pong.done():
                pong.set_result(False)
        self._keeper.lost(self)
        streams, self.streams = list(self.streams.values()), {}
        for stream in streams:
            stream.lost(error)

    def _say_goodbye(self, code: Code, text: str = "") -> None:
        self.connection.close_connection(code, text.encode())
        self.write_out()
        self._transport.close()
