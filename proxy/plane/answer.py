"""Answers that the proxy makes itself, given to any downstream codec."""

from __future__ import annotations

from typing import Final

from proxy.clock import http_date
from proxy.config.model import ErrorFormat, PlatformErrors
from proxy.dialects import Request, is_recognised, render
from proxy.errors import Explained, ProxyError
from proxy.plane import guard
from proxy.plane.codec import DownstreamCodec
from proxy.plane.head import RequestHead, ResponseHead, block, pairs, values

# What of a page's fields its explanation has, too: the rest describes a body that is gone.
_OF_A_PAGE: Final = frozenset(
    (
        b"alt-svc", b"date", b"retry-after", b"server", b"traceparent", b"via",
        b"www-authenticate", b"x-cloud-trace-context",
    )
)  # fmt: skip


class FailedRequest(Request):
    """A request that is answered with an error, in the words of `dialects`."""

    def __init__(
        self,
        down: DownstreamCodec,
        head: RequestHead,
        route: str,
        language: ErrorFormat,
        *,
        body: bytes = b"",
        permission: bytes = b"",
        said: bytes = b"",
    ) -> None:
        """`body` is the request's, where it is whole and small.

        Some languages name in it what an answer belongs to.  `permission` is a field block that
        lets a page of a browser read the answer, `said` more fields of it.
        """
        self._down = down
        self._head = head
        self._body = body
        self._permission = permission
        self._said = said
        self.route = route
        self.language = language
        self.protocol = down.protocol
        self.method = head.method.decode("latin-1")
        self.target = head.target.decode("latin-1")

    def field(self, name: str) -> str:
        """Return the first value of a field, empty if there is none."""
        found = values(self._head.fields, name.encode())
        return found[0].decode("latin-1") if found else ""

    def body(self) -> bytes:
        """Return the body where it is whole and small, else nothing."""
        return self._body

    def is_told(self, mode: PlatformErrors) -> bool:
        """Tell whether the caller gets an explanation for a page of Google's front end."""
        if mode is PlatformErrors.AUTO:
            return is_recognised(self)
        return mode is PlatformErrors.EXPLAIN

    def answer(self, error: Explained, *, now: float, page: bytes = b"") -> None:
        """Answer with `error` in the caller's language.

        `now` is in seconds since the epoch; `page` is the field block of a page that the answer
        stands for.
        """
        answer = render(error, self)
        fields = [(name.encode(), value.encode("latin-1")) for name, value in answer.fields]
        fields += [pair for pair in pairs(page) if pair[0].lower() in _OF_A_PAGE]
        if not values(page, b"date"):
            fields.append(dated(now))
        response = ResponseHead(answer.status, block(fields) + self._said, length=len(answer.body))
        response.bodyless = self._head.method == b"HEAD"
        if self._permission:
            response.fields = guard.allow(response.fields, self._permission)
        self._down.write_head(response)
        if answer.body and not response.bodyless:
            self._down.write_data(answer.body)
        self._down.write_end(answer.trailers)


def dated(now: float) -> tuple[bytes, bytes]:
    """Return the Date of an answer that is made `now`, in seconds since the epoch.

    RFC 9110, 6.6.1: whoever makes an answer must say when, and 5.6.7: how.
    """
    return b"Date", http_date(now).encode()


def write_preflight(
    down: DownstreamCodec, head: RequestHead, *, now: float, permission: bytes
) -> None:
    """Answer a browser's preflight; `now` and `permission` as for `FailedRequest`."""
    answer = guard.preflight_answer(head)
    answer.fields = guard.allow(answer.fields + block([dated(now)]), permission)
    down.write_head(answer)
    down.write_end(b"")


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
        request = FailedRequest(self._down, self._head, self._route, self._language)
        request.answer(self._error, now=self._now)

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
