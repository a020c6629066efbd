"""A service and callers that speak HTTP/2, on the h2 library, beside those of `app` and `traffic`.

The service does the same for the same paths and checks tokens by itself; callers do a few things
at once over one connection.  A stream that ends without END_STREAM, and a connection that ends
before its streams, are cuts.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from proxy.emulator.keys import Keys
from proxy.emulator.service import ServiceRequest
from proxy.emulator.verify import Refusal, verify
from tests.chaos.app import PIECE, body, event
from tests.chaos.invariants import Seen
from tests.chaos.traffic import LARGE, PATIENCE, TOKENLESS, UPLOADS
from tests.fakes import leaks, tls

Pairs = list[tuple[str, str]]

WINDOW = 1 << 20
FRAME_HEAD, GOAWAY = 9, 7

WORDS = ("bytes", "bytes", "chunks", "events", "upload", "leave")
"""What callers do; the last is to go away before the answer."""


class Ended(Exception):
    """The stream, or its connection, ended before its message."""


class Stream:
    """One message that comes and one that goes."""

    def __init__(self, wire: Wire, number: int) -> None:
        self.number = number
        self.fields: dict[str, str] = {}
        self.data = bytearray()
        self.is_whole = False
        self.is_over = False
        self._wire = wire
        self._news = asyncio.Event()

    def told(self) -> None:
        self._news.set()

    async def whole(self) -> None:
        """Wait for all of the message.  Raises `Ended`."""
        while not self.is_whole:
            if self.is_over:
                raise Ended
            self._news.clear()
            await self._news.wait()

    async def send(self, data: bytes, *, ends: bool = True) -> None:
        """Send as the windows allow.  Raises `Ended`."""
        place, wire = 0, self._wire
        while place < len(data) or ends:
            if self.is_over or wire.is_over:
                raise Ended
            room = min(PIECE, wire.room(self.number))
            piece = data[place : place + room]
            place += len(piece)
            last = place == len(data)
            if piece or last:
                await wire.send(self.number, piece, ends=ends and last)
            else:
                wire.opened.clear()
                await wire.opened.wait()
            if last:
                return


class Wire:
    """One connection of either side; `run` reads until it ends."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, calls: bool
    ) -> None:
        self.streams: dict[int, Stream] = {}
        self.begun: asyncio.Queue[Stream | None] = asyncio.Queue()
        """Requests whose head has come; None once the connection has ended."""
        self.is_over = False
        self.is_leaving = False
        """Whether the far end takes no further requests, and finishes those that it has."""
        self.opened = asyncio.Event()
        """Set when a window may have grown."""
        self._calls = calls
        self._came = bytearray()
        self._reader, self._writer = reader, writer
        settings = h2.config.H2Configuration(client_side=calls, header_encoding="utf-8")
        self._h2 = h2.connection.H2Connection(settings)
        self._h2.initiate_connection()
        self._h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: WINDOW})
        self._h2.increment_flow_control_window(WINDOW)
        self._flush()

    async def run(self) -> None:
        try:
            while data := await self._reader.read(PIECE):
                for one in self._h2.receive_data(self._unless_leaving(data)):
                    self._take(one)
                self._flush()
        except OSError:
            pass
        finally:
            self.is_over = True
            self._writer.transport.abort()
            self.opened.set()
            self.begun.put_nowait(None)
            for stream in self.streams.values():
                stream.is_over = True
                stream.told()

    def _unless_leaving(self, data: bytes) -> bytes:
        """Return what came but for GOAWAY, after which h2 takes no frame of any stream.

        RFC 9113, 6.8: streams that the far end has begun go on.
        """
        if not self._calls:
            return data
        self._came += data
        place, kept = 0, bytearray()
        while place + FRAME_HEAD <= len(self._came):
            size = FRAME_HEAD + int.from_bytes(self._came[place : place + 3])
            if place + size > len(self._came):
                break
            if self._came[place + 3] == GOAWAY:
                self.is_leaving = True
            else:
                kept += self._came[place : place + size]
            place += size
        del self._came[:place]
        return bytes(kept)

    def begin(self, pairs: Pairs, *, ends: bool) -> Stream:
        """Send a head on a new stream.  Raises `Ended`."""
        try:
            number = self._h2.get_next_available_stream_id()
            self._h2.send_headers(number, pairs, end_stream=ends)
        except h2.exceptions.ProtocolError:
            raise Ended from None
        stream = self.streams[number] = Stream(self, number)
        self._flush()
        return stream

    def answer(self, stream: Stream, pairs: Pairs) -> None:
        """Send the head of an answer.  Raises `Ended`."""
        try:
            self._h2.send_headers(stream.number, pairs)
        except h2.exceptions.ProtocolError:
            raise Ended from None
        self._flush()

    def room(self, number: int) -> int:
        """Return how much may be sent on a stream.  Raises `Ended`."""
        try:
            return min(self._h2.local_flow_control_window(number), self._h2.max_outbound_frame_size)
        except h2.exceptions.ProtocolError:
            raise Ended from None

    async def send(self, number: int, data: bytes, *, ends: bool) -> None:
        """Send a frame that the windows have room for.  Raises `Ended`."""
        try:
            self._h2.send_data(number, data, end_stream=ends)
            self._flush()
            await self._writer.drain()
        except (h2.exceptions.ProtocolError, OSError):
            raise Ended from None

    def cancel(self, stream: Stream) -> None:
        """Give a stream up."""
        with suppress(h2.exceptions.ProtocolError):
            self._h2.reset_stream(stream.number, h2.errors.ErrorCodes.CANCEL)
            self._flush()
        self.streams.pop(stream.number, None)

    def end(self) -> None:
        self._writer.transport.abort()

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data and not self._writer.transport.is_closing():
            self._writer.write(data)

    def _take(self, one: h2.events.Event) -> None:
        if isinstance(one, h2.events.WindowUpdated | h2.events.RemoteSettingsChanged):
            self.opened.set()
        if isinstance(one, h2.events.RequestReceived):
            stream = self.streams[one.stream_id] = Stream(self, one.stream_id)
            stream.fields = {str(name): str(value) for name, value in one.headers}
            self.begun.put_nowait(stream)
            return
        number = getattr(one, "stream_id", None)
        found = self.streams.get(number) if number else None
        if isinstance(one, h2.events.DataReceived):
            # What nobody reads any more counts for the connection's window, too.
            self._acknowledge(one)
        if found is not None:
            self._tell(found, one)

    def _acknowledge(self, one: h2.events.DataReceived) -> None:
        with suppress(h2.exceptions.ProtocolError):
            self._h2.acknowledge_received_data(one.flow_controlled_length, one.stream_id)

    def _tell(self, stream: Stream, one: h2.events.Event) -> None:
        match one:
            case h2.events.ResponseReceived():
                stream.fields = {str(name): str(value) for name, value in one.headers}
            case h2.events.DataReceived():
                stream.data += one.data
            case h2.events.StreamEnded():
                stream.is_whole = True
            case h2.events.StreamReset():
                stream.is_over = True
                self.opened.set()
        stream.told()


class Http2Service:
    """Speaks HTTP/2 over TLS alone, and answers whoever has a token for `audience`."""

    def __init__(self, keys: Keys, audience: str) -> None:
        self.audience = audience
        self.port = 0
        self.requests = Seen()
        self.bad_uploads = 0
        self._keys = keys
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: list[BaseException] = []

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Http2Service]:
        context = tls.server_context(alpn=("h2",))
        server = await asyncio.start_server(self._accepted, "127.0.0.1", 0, ssl=context)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._failures:
            raise BaseExceptionGroup("the HTTP/2 service failed", self._failures)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _ = self._own(self._serve(Wire(reader, writer, calls=False)))

    def _own(self, doing: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(doing)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failures.append(error)

    async def _serve(self, wire: Wire) -> None:
        _ = self._own(wire.run())
        while (stream := await wire.begun.get()) is not None:
            _ = self._own(self._answer(wire, stream))

    async def _answer(self, wire: Wire, stream: Stream) -> None:
        method, target = stream.fields[":method"], stream.fields[":path"]
        scheme, _, token = stream.fields.get("x-serverless-authorization", "").partition(" ")
        found = verify(token, self._keys, (self.audience,), time.time())  # noqa: TID251 (tokens are real)
        is_good = scheme == "Bearer" and not isinstance(found, Refusal)
        self.requests.add(
            ServiceRequest(
                method=method,
                target=target,
                headers=tuple(stream.fields.items()),
                claims=found if is_good and not isinstance(found, Refusal) else None,
                refusal=found if isinstance(found, Refusal) else None,
                status=None if is_good else 401,
            )
        )
        with suppress(Ended):
            if is_good:
                await self._do(wire, stream, target.partition("?")[0])
            else:
                wire.answer(stream, [(":status", "401")])
                await stream.send(b"")
        wire.streams.pop(stream.number, None)

    async def _do(self, wire: Wire, stream: Stream, path: str) -> None:
        word, *numbers = path.strip("/").split("/")
        seed, size = (int(n) for n in numbers)
        if word == "upload":
            await stream.whole()
            self.bad_uploads += stream.data != body(seed, size)
            wire.answer(stream, [(":status", "200")])
            await stream.send(str(len(stream.data)).encode())
        elif word == "events":
            wire.answer(stream, [(":status", "200"), ("content-type", "text/event-stream")])
            for number in range(size):
                await stream.send(event(seed, number), ends=False)
                await asyncio.sleep(0.001)
            await stream.send(b"")
        else:
            length = [("content-length", str(size))] if word == "bytes" else []
            wire.answer(stream, [(":status", "200"), *length])
            await stream.send(body(seed, size))


class Http2Calls:
    """Callers that share connections, a few at once on each, until they are stopped."""

    def __init__(
        self, address: tuple[str, int], prefix: str, *, callers: int, seed: int, leaves: bool
    ) -> None:
        """There is a connection for every three callers; `prefix` chooses the route.

        Without `leaves` they wait for every answer.
        """
        self.outcomes: Counter[str] = Counter()
        self.problems: list[str] = []
        self.tokenless: list[tuple[float, float]] = []
        self.slowest = 0.0
        self._address = address
        self._prefix = prefix
        self._callers = callers
        self._seed = seed
        self._words = WORDS[: len(WORDS) if leaves else -1]
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self._wires: dict[int, Wire] = {}
        self._opening = asyncio.Lock()
        self._reading: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Let the callers call."""
        loop = asyncio.get_running_loop()
        for number in range(self._callers):
            choice = random.Random(self._seed * 1000 + number)  # noqa: S311 (repeatable)
            self._tasks.append(loop.create_task(self._run(number // 3, choice)))

    async def stop(self) -> None:
        """Let every caller finish what it does, and end."""
        self._stopping = True
        await asyncio.gather(*self._tasks)
        for wire in self._wires.values():
            wire.end()
        await asyncio.gather(*self._reading, return_exceptions=True)

    @property
    def good(self) -> int:
        """Calls that came to what they should."""
        return self.outcomes["good"]

    @property
    def bad(self) -> dict[str, int]:
        """Everything else, by what happened."""
        return {outcome: count for outcome, count in self.outcomes.items() if outcome != "good"}

    async def _run(self, number: int, choice: random.Random) -> None:
        while not self._stopping:
            began, at = time.monotonic(), time.time()  # noqa: TID251 (as tokens have it)
            outcome = await self._outcome(number, choice)
            if outcome in TOKENLESS:
                self.tokenless.append((at, time.time()))  # noqa: TID251 (as tokens have it)
            self.outcomes[outcome] += 1
            self.slowest = max(self.slowest, time.monotonic() - began)

    async def _outcome(self, number: int, choice: random.Random) -> str:
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._call(await self._wire(number), choice)
        except OSError:
            await asyncio.sleep(0.01)
            return "refused"
        except Ended:
            return "cut"
        except TimeoutError:
            self.problems.append(f"no end within {PATIENCE} s")
            return "cut"

    async def _wire(self, number: int) -> Wire:
        """Return the connection of that number, a new one where it has ended."""
        async with self._opening:
            wire = self._wires.get(number)
            if wire is None or wire.is_over or wire.is_leaving:
                wire = Wire(*await asyncio.open_connection(*self._address), calls=True)
                self._wires[number] = wire
                task = asyncio.get_running_loop().create_task(wire.run())
                self._reading.add(task)
                task.add_done_callback(self._read)
        return wire

    def _read(self, reading: asyncio.Task[None]) -> None:
        self._reading.discard(reading)
        if (error := reading.exception()) is not None:
            self.problems.append(f"what came is no HTTP/2: {error!r}")

    async def _call(self, wire: Wire, choice: random.Random) -> str:
        word = choice.choice(self._words)
        seed = choice.randrange(1000)
        size = choice.randrange(1, 30 if word == "events" else choice.choice((1000, LARGE)))
        path = "bytes" if word == "leave" else word
        target = f"{self._prefix}/{path}/{seed}/{size}"
        if word == "upload":
            target += f"?{next(UPLOADS)}"
        method = "POST" if word == "upload" else "GET"
        head = [(":method", method), (":scheme", "http"), (":authority", "localhost")]
        stream = wire.begin([*head, (":path", target)], ends=method == "GET")
        try:
            if word == "leave":
                await asyncio.sleep(0.001)
                return "left"
            if word == "upload":
                with suppress(Ended):  # The answer may have come before the request was whole.
                    await stream.send(body(seed, size))
            await stream.whole()
        finally:
            wire.cancel(stream)
        return self._judge(stream, word, seed, size)

    def _judge(self, stream: Stream, word: str, seed: int, size: int) -> str:
        fields, got = stream.fields, bytes(stream.data)
        leaks.look("the head of an answer", repr(fields))
        if (reason := fields.get("x-auth-proxy-error")) is not None:
            leaks.look("an error of the proxy's own", got)
            return f"error {reason}"
        expected = body(seed, size)
        if word == "upload":
            expected = str(size).encode()
        elif word == "events":
            expected = b"".join(event(seed, number) for number in range(size))
        if fields.get(":status") != "200" or got != expected:
            self.problems.append(
                f"{word}: {fields}, {len(got)} bytes that are not the {len(expected)} expected"
            )
        return "good"
