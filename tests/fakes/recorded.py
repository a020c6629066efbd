"""A connection of `proxy.plane.http2.connection` without a proxy: it notes its events."""

from __future__ import annotations

from typing import Any

from proxy.clock import Clock
from proxy.plane.http2.connection import Connection, StreamState
from proxy.plane.http2.fields import Fields
from proxy.plane.http2.standard import Code, ConnectionFault
from proxy.plane.http2.tolls import Tolls, work_allowance

Event = tuple[Any, ...]

LIMIT = 64 * 1024


def pairs_of(fields: Fields) -> list[tuple[bytes, bytes]]:
    return [(field.name, field.value) for field in fields.items]


class RecordedStream(StreamState):
    """Notes what it is told, and does what every stream has to do."""

    def __init__(self, connection: Recorded, number: int) -> None:
        super().__init__(connection.initial_window)
        self.id = number
        self.connection = connection

    def take_head(self, fields: Fields, *, ended: bool) -> None:
        self._note("head", pairs_of(fields), ended)
        self.remote_ended = ended
        self._leave_if_done()

    def take_data(self, payload: bytes, *, ended: bool) -> None:
        self._note("data", payload, ended)
        self.remote_ended = ended
        self._leave_if_done()

    def take_trailers(self, fields: Fields) -> None:
        self._note("trailers", pairs_of(fields))
        self.remote_ended = True
        self._leave_if_done()

    def take_reset(self, code: int) -> None:
        self._note("reset", code)
        self.connection.release(self, reset=False)

    def take_window(self) -> None:
        """Nothing waits to be sent."""

    def fault(self, code: Code, text: str) -> None:
        assert text
        self._note("fault", code)
        self.connection.send_reset(self.id, code)
        self.connection.release(self, reset=True)

    def _note(self, kind: str, *rest: object) -> None:
        self.connection.events.append((kind, self.id, *rest))

    def _leave_if_done(self) -> None:
        if self.local_ended and self.remote_ended:
            self.connection.release(self, reset=False)


class Recorded(Connection[RecordedStream]):
    """Notes the events of the connection and of its streams, in order."""

    def __init__(
        self,
        head_limit: int = LIMIT,
        *,
        client: bool = False,
        clock: Clock = lambda: 0.0,
        most: int = 100,
    ) -> None:
        """`most` is how many streams the peer may have open at once."""
        tolls = Tolls(work_allowance(clock, alone=True))
        super().__init__(head_limit, tolls, client=client)
        self.events: list[Event] = []
        self._most = most

    def hear(self, data: bytes) -> list[Event]:
        """Take what came, in as many turns as it needs; return the events that it has caused."""
        self.events.clear()
        try:
            while not self.receive(data):
                data = b""
        except ConnectionFault as fault:
            self.is_closed = True
            self.events.append(("end", fault.code))
        return list(self.events)

    def ask(self, lines: bytes, *, ended: bool) -> RecordedStream:
        """Open a stream of our own."""
        self.highest = self.highest + 2 if self.highest else 1
        stream = RecordedStream(self, self.highest)
        self.adopt(stream)
        self.send_head(stream, lines, ended=ended)
        return stream

    def _accept(self, number: int) -> RecordedStream | None:
        if len(self.streams) >= self._most:
            return None
        stream = RecordedStream(self, number)
        self.adopt(stream)
        return stream

    def _on_window(self) -> None:
        """Nothing waits to be sent."""

    def _on_windows(self) -> None:
        """Nothing waits to be sent."""

    def _on_settings(self) -> None:
        self.events.append(("settings",))

    def _on_stream_limit(self, limit: int) -> None:
        self.events.append(("limit", limit))

    def _on_pong(self, data: bytes) -> None:
        self.events.append(("pong", data))

    def _on_goaway(self, last: int, code: int) -> None:
        self.events.append(("goaway", last, code))
