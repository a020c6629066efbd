"""Answers that the proxy makes itself, given to any downstream codec."""

from __future__ import annotations

from proxy.clock import http_date
from proxy.config.model import ErrorFormat
from proxy.dialects import Request, render
from proxy.errors import ProxyError
from proxy.plane import guard
from proxy.plane.codec import DownstreamCodec
from proxy.plane.head import RequestHead, ResponseHead, block, values


class _Request(Request):
    """A request's head in the words of `dialects`."""

    def __init__(
        self, head: RequestHead, route: str, language: ErrorFormat, protocol: str, body: bytes
    ) -> None:
        self._head = head
        self._body = body
        self.route = route
        self.language = language
        self.protocol = protocol
        self.method = head.method.decode("latin-1")
        self.target = head.target.decode("latin-1")

    def field(self, name: str) -> str:
        found = values(self._head.fields, name.encode())
        return found[0].decode("latin-1") if found else ""

    def body(self) -> bytes:
        return self._body


def dated(now: float) -> tuple[bytes, bytes]:
    """Return the Date of an answer that is made `now`, in seconds since the epoch.

    RFC 9110, 6.6.1: whoever makes an answer must say when, and 5.6.7: how.
    """
    return b"Date", http_date(now).encode()


def write_error(
    down: DownstreamCodec,
    error: ProxyError,
    head: RequestHead,
    *,
    now: float,
    route: str = "",
    language: ErrorFormat = ErrorFormat.AUTO,
    permission: bytes = b"",
    said: bytes = b"",
    body: bytes = b"",
) -> None:
    """Answer with an error in the caller's language.

    `now` is in seconds since the epoch.
    `permission` is a field block that lets a page read it, `said` more fields.  `body` is the
    request's, where it is whole and small: some languages name in it what an answer belongs to.
    """
    answer = render(error, _Request(head, route, language, down.protocol, body))
    fields = [(name.encode(), value.encode("latin-1")) for name, value in answer.fields]
    fields.append(dated(now))
    response = ResponseHead(answer.status, block(fields) + said, length=len(answer.body))
    response.bodyless = head.method == b"HEAD"
    if permission:
        response.fields = guard.allow(response.fields, permission)
    down.write_head(response)
    if answer.body and not response.bodyless:
        down.write_data(answer.body)
    down.write_end(answer.trailers)


class Refusal:
    """A `RequestSink` for a request that has no route: it answers and ignores the rest."""

    __slots__ = ("_down", "_error", "_head", "_language", "_now", "_route")

    def __init__(
        self,
        down: DownstreamCodec,
        head: RequestHead,
        error: ProxyError,
        *,
        now: float,
        route: str = "",
        language: ErrorFormat = ErrorFormat.AUTO,
    ) -> None:
        """`now` is in seconds since the epoch."""
        self._down = down
        self._now = now
        self._head = head
        self._error = error
        self._route = route
        self._language = language

    def start(self, *, ended: bool) -> None:  # noqa: ARG002 (the interface)
        """Answer at once, whatever of the request is still to come."""
        write_error(
            self._down,
            self._error,
            self._head,
            now=self._now,
            route=self._route,
            language=self._language,
        )

    def request_data(self, data: bytes) -> None:
        """Throw it away: the answer does not depend on it."""

    def request_end(self, trailers: bytes) -> None:
        """Nothing to do: the codec knows that the request is whole."""

    def request_flush(self) -> None:
        """Nothing is pending."""

    def gone(self) -> None:
        """Ignore it: the answer was written."""

    def broken(self, error: ProxyError) -> None:
        """Ignore it: the answer was written."""

    def pause_response(self) -> None:
        """Nothing is being sent."""

    def resume_response(self) -> None:
        """Nothing is being sent."""
