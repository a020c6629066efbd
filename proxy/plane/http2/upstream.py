"""HTTP/2 towards the upstream: one connection, as many streams as it allows."""

from __future__ import annotations

import asyncio
import math
from typing import Final, Protocol, cast

from proxy.deadlines import Within
from proxy.errors import (
    ProxyError,
    UpstreamConnectFailed,
    UpstreamMalformed,
    UpstreamRefused,
    UpstreamReset,
    new_event,
)
from proxy.plane import unexpected
from proxy.plane.codec import ResponseSink
from proxy.plane.head import RequestHead
from proxy.plane.http2.endpoint import ANY_LENGTH, Endpoint, Stream
from proxy.plane.http2.fields import Fields
from proxy.plane.http2.frames import SETTINGS
from proxy.plane.http2.heads import read_response, read_trailers, request_lines
from proxy.plane.http2.standard import LAST_STREAM, Code, ConnectionFault, name_of
from proxy.plane.http2.tolls import LENIENCY, TALK, Tolls, work_allowance
from proxy.plane.sweeper import Sweeper
from proxy.plane.tls import TlsTransport
from proxy.plane.unread import unread, watched
from proxy.unreached import is_tls

# RFC 9113, 6.5.2: an upstream that names no limit has none, and should not name less than 100.
# Beyond 100 another connection is better than one that everything depends on.
USUAL_STREAMS: Final = 100

# Seconds of silence, while streams are open, before each ping. gRPC servers take offence at the
# third ping within five minutes in which they had nothing to send, so the gaps grow.
_PING_AFTER: Final[tuple[float, ...]] = (10.0, 60.0, 240.0, 330.0)

# Length and type of the first frame (RFC 9113, 4.1), which has to be SETTINGS.
_KNOWN_AT: Final = 4

PING_TIMEOUT: Final = 10.0
"""Seconds that an upstream may take to answer a ping before it is given up."""

_REFUSED: Final = "The upstream did not take the request."
_UNUSED: Final = "The upstream closed the connection before the request was sent."


class OnlyHttp1(Exception):
    """The upstream does not speak HTTP/2; the text says how that was found out."""

    def __init__(self, text: str, *, is_certain: bool) -> None:
        super().__init__(text)
        self.is_certain = is_certain
        """Whether the upstream said so, rather than behaved as if."""


class Pool(Protocol):
    """What a connection needs of the pool that it belongs to."""

    def freed(self, connection: Http2Upstream) -> None:
        """Note that a stream has ended, or that more are allowed."""

    def retired(self, connection: Http2Upstream) -> None:
        """Note that the connection takes no more streams."""

    def lost(self, connection: Http2Upstream) -> None:
        """Forget a connection that is closed."""


class AskingStream(Stream):
    """The upstream codec (see `proxy.plane.codec`); has a number once its head has left."""

    __slots__ = ("_connection", "_method", "_sink", "answered", "reused")

    def __init__(self, connection: Http2Upstream) -> None:
        super().__init__(connection)
        self._connection = connection
        self._sink: ResponseSink | None = None
        self._method = b""
        self.answered = False
        """Whether anything of an answer came."""
        self.reused = connection.is_reused
        """Whether the connection had served others: then it may have died unnoticed."""

    @property
    def wrote(self) -> bool:
        """Whether any byte left: a stream gets its number when its head does."""
        return self.id != 0

    # --- the exchange's side -------------------------------------------------------------

    def send_head(
        self,
        sink: ResponseSink,
        head: RequestHead,
        *,
        target: bytes,
        authority: bytes,
        fields: bytes,
    ) -> None:
        """Begin an attempt; see `UpstreamCodec`."""
        self._sink = sink
        self._method = head.method
        self._head = request_lines(
            head, self._connection.scheme, target=target, authority=authority, fields=fields
        )
        self.never_indexed = head.never_indexed

    def flush(self) -> None:
        """Let what was sent leave as far as the upstream's windows allow."""
        if self.id == 0 and not self._connection.takes_streams:
            # The connection ended between the promise of this stream and its use.
            if not self.is_closed:
                self.endpoint.forget(self)
                asyncio.get_running_loop().call_soon(self._fail, UpstreamRefused(_UNUSED))
            return
        super().flush()

    def send_end(self, trailers: bytes) -> None:
        """End the request with the next frame that the windows let leave."""
        self._ended = True
        self._trailers = trailers
        self.flush()

    def begin_upload(self) -> None:
        """Nobody else waits for this stream's end."""

    def cancel(self) -> None:
        """End the attempt at once; nothing more is delivered."""
        self._sink = None
        self.reset(Code.CANCEL)

    def close(self) -> None:
        """End both directions: only tunnels do, and HTTP/2 has none."""
        self.cancel()

    def pause_response(self) -> None:
        """Stop the upstream on this stream, once its window is used up."""
        self.pause_receiving()

    def resume_response(self) -> None:
        """Let the upstream send again."""
        self.resume_receiving()

    # --- the connection's side -----------------------------------------------------------

    def fault(self, code: Code, text: str) -> None:
        """End the attempt because the upstream broke the protocol on it."""
        self.reset(code)
        self._fail(UpstreamMalformed(text))

    def refused(self) -> None:
        """Take the upstream's word that it has done nothing and will do nothing."""
        self._end(UpstreamRefused(_REFUSED))

    def take_reset(self, code: int) -> None:
        """Take the upstream's end of the stream."""
        if code == Code.REFUSED_STREAM:
            self._connection.refused_one()
            if not self.answered:
                self.refused()
                return
        self.reused = False  # The connection lives: it is not what has failed.
        when = "within its response" if self.answered else "without a response"
        self._end(UpstreamReset(f"The upstream reset the stream {when} ({name_of(code)})."))

    def lost(self, error: ProxyError | None) -> None:
        """Take the end of the connection."""
        text = "The response was not complete."
        if not self.answered:
            text = "Nothing of a response had come."
        self._end(error or UpstreamReset(text, event=self._connection.event))

    def flush_sink(self) -> None:
        """Let what was delivered leave towards the caller."""
        if self._sink is not None:
            try:
                self._sink.response_flush()
            except Exception as bug:  # noqa: BLE001 (it ends this exchange, whatever it is)
                self._collapse(bug)

    def take_head(self, fields: Fields, *, ended: bool) -> None:
        """Take a head, or an informational one."""
        self.answered = True
        try:
            head = read_response(fields, self._method, ended=ended)
            if head.status < 200 and ended:  # noqa: PLR2004 (RFC 9113, 8.1)
                raise UpstreamMalformed("An informational response ends the stream.")
        except ProxyError as error:
            self.reset(Code.PROTOCOL_ERROR)
            self._fail(error)
            return
        sink = self._sink
        if sink is None:
            return
        try:
            if head.status < 200:  # noqa: PLR2004 (RFC 9110, 15.2)
                sink.informational(head)
                return
            length = ANY_LENGTH if head.length is None else head.length
            self._expected = 0 if head.bodyless else length
            # The exchange may cancel us within this call.
            sink.response_head(head)
        except Exception as bug:  # noqa: BLE001 (it ends this exchange, whatever it is)
            self._collapse(bug)
            return
        if ended:
            self.take_end(b"")
        elif not self.is_closed:
            self.endpoint.touch(self)

    def take_trailers(self, fields: Fields) -> None:
        """Take the block that ends the response (RFC 9113, 8.1)."""
        try:
            trailers = read_trailers(fields)
        except ValueError as error:
            self.fault(Code.PROTOCOL_ERROR, str(error))
        else:
            self.take_end(trailers)

    def _number(self) -> None:
        self._connection.number(self)

    def _deliver(self, data: bytes) -> None:
        if self._sink is not None:
            try:
                self._sink.response_data(data)
            except Exception as bug:  # noqa: BLE001 (it ends this exchange, whatever it is)
                self._collapse(bug)

    def _deliver_end(self, trailers: bytes) -> None:
        # The place is free before the exchange hears of it, so that the caller's next request
        # finds it.
        sink, self._sink = self._sink, None
        try:
            self._connection.served()
            if self.local_ended:
                self.endpoint.forget(self)
            else:
                self.reset(Code.CANCEL)
        except Exception as bug:  # noqa: BLE001 (places would be counted wrong from here on)
            self._connection.tear(bug)
            self._sink = sink
            self._collapse(bug)
            return
        if sink is not None:
            try:
                sink.response_end(trailers)
            except Exception as late:  # noqa: BLE001 (it ends this exchange, whatever it is)
                unexpected.end(sink, late)

    def _collapse(self, bug: Exception) -> None:
        """End the attempt after an exception beyond this connection, which goes on."""
        sink, self._sink = self._sink, None
        try:
            self.reset(Code.INTERNAL_ERROR)
        finally:
            if sink is not None:
                unexpected.end(sink, bug)

    def _on_half_closed(self) -> None:
        """Nothing to do: `timeouts.response` bounds the wait for the answer."""

    def _on_slow(self) -> None:
        if self._sink is not None:
            self._sink.pause_request()

    def _on_caught_up(self) -> None:
        if self._sink is not None:
            self._sink.resume_request()

    def _end(self, error: ProxyError) -> None:
        self.drop_unsent()
        self.endpoint.forget(self)
        self._fail(error)

    def _fail(self, error: ProxyError) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.failed(error)


class Http2Upstream(Endpoint[AskingStream], asyncio.Protocol):
    """A connection to the upstream; its streams are the upstream codecs."""

    __slots__ = (
        "_asked_at", "_greeting", "_pings", "_pongs", "_pool", "_silence", "active", "deadline",
        "event", "heard_at", "idle_since", "is_doubtful", "is_leaving", "is_reused", "limit",
        "most_streams", "ready", "scheme", "takes_streams",
    )  # fmt: skip

    def __init__(self, pool: Pool, head_limit: int, sweeper: Sweeper, *, tls: bool) -> None:
        tolls = Tolls(work_allowance(sweeper.clock, alone=True), leniency=LENIENCY)
        super().__init__(head_limit, sweeper, tolls, client=True)
        self._pool = pool
        self.scheme = b"https" if tls else b"http"
        self.ready: asyncio.Future[ProxyError | OnlyHttp1 | None] = (
            asyncio.get_running_loop().create_future()
        )
        """Done when the upstream has said how many streams it allows; or why there are none."""
        self.event = new_event()
        """Its end, which all of its streams are told of."""
        self.limit = USUAL_STREAMS
        """How many streams the upstream says it allows at once."""
        self.most_streams = USUAL_STREAMS
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
        """Return a stream that has a place; its number comes when its head leaves."""
        stream = AskingStream(self)
        if self.active == 0:
            self._listen()
        self.active += 1
        return stream

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
        return bool(watched(self._transport)(0))

    def close(self) -> None:
        """Close neatly: nothing is open any more."""
        if not self.is_closed:
            self._end(None)
            self._say_goodbye(Code.NO_ERROR)

    def retire(self) -> None:
        """Give no more places; close when the last stream has ended."""
        if not self.is_leaving:
            self.is_leaving = True
            self._pool.retired(self)
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
        self.begin({})

    def data_received(self, data: bytes) -> None:
        """Take a segment; the first tells whether HTTP/2 is spoken at all."""
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
        if not is_text and (len(self._greeting) < _KNOWN_AT or self._greeting[-1] == SETTINGS):
            return False
        text = "it answered HTTP/2's preface in another protocol"
        if is_tls(self._greeting):
            text = "it speaks TLS on this port: write https:// in the route's upstream"
        self.ready.set_result(OnlyHttp1(text, is_certain=is_text))
        return True

    def eof_received(self) -> bool:
        """Take the upstream's FIN: nothing more can come."""
        self.take_rest()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Take the end of the connection."""
        if exc is not None and unexpected.is_ours(exc):
            self.tear(exc)  # What was read last has not been taken.
        self.take_rest()
        if not (self.is_closed or isinstance(self._transport, TlsTransport)):  # It has done so.
            for data in unread(self._transport):
                self.data_received(data)
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
        stream.id = self.highest = self.highest + 2 if self.highest else 1
        self.adopt(stream)
        if stream.id == LAST_STREAM:
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

    def _collapse(self, failure: ProxyError) -> None:
        self._end(failure)
        self._transport.abort()

    def drop(self) -> None:
        """Close without a word, which the upstream would not read or not understand."""
        self._end(UpstreamReset("The upstream does not read."))
        self._transport.abort()

    def refused_one(self) -> None:
        """Note that the upstream takes fewer streams than it says."""
        # The others that are open now, for the time being.
        self.most_streams = max(1, min(self.most_streams, self.active - 1))

    def _accept(self, number: int) -> AskingStream | None:  # noqa: ARG002 (the callers' side has use for it)
        raise AssertionError("an upstream opens no streams")

    def _on_goaway(self, last: int, code: int) -> None:  # noqa: ARG002 (whatever the reason)
        """Open no more; what the upstream has not begun begins elsewhere (RFC 9113, 6.8)."""
        self.takes_streams = False
        self.retire()
        unprocessed = [stream for number, stream in self.streams.items() if number > last]
        self.lose(unprocessed, UpstreamRefused(_REFUSED))

    def _on_pong(self, data: bytes) -> None:
        pong = self._pongs.pop(data, None)
        if pong is None:
            self.tolls.charge(TALK)
            return
        self.is_doubtful = False
        if not pong.done():
            pong.set_result(True)

    def _on_settings(self) -> None:
        if self.ready.done():
            self._pool.freed(self)
        else:
            self.ready.set_result(None)

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
            self._pool.freed(self)

    def _on_segment(self) -> None:
        """Do nothing: an upstream's time for a head is its exchange's to bound."""

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
        self.send_ping(data)
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
        self._pool.lost(self)
        self.lose(list(self.streams.values()), error)

    def _say_goodbye(self, code: Code, text: str = "") -> None:
        self.send_goaway(0, code, text)
        self.write_out()
        self._transport.close()
