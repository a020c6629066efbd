"""The pages of Google's front end, which answers in place of a service that it protects."""

from __future__ import annotations

import html
from email.utils import formatdate
from http import HTTPStatus

from proxy.frozen import frozen

# What Google's front end says of a token that it could not verify.
INVALID_TOKEN = (
    "WWW-Authenticate",
    'Bearer error="invalid_token" error_description="The access token could not be verified"',
)

_WAIT = "<p>Please try again in 30 seconds."
_HEADLINES = {
    400: ("Bad Request", "Your client has issued a malformed or illegal request."),
    401: ("Unauthorized", "Your client does not have permission to the requested URL {url}."),
    403: ("Forbidden", "Your client does not have permission to get URL {url} from this server."),
    404: ("Page not found", "The requested URL was not found on this server."),
    500: (
        "Server Error",
        f"The server encountered an error and could not complete your request.{_WAIT}",
    ),
    502: (
        "Server Error",
        f"The server encountered a temporary error and could not complete your request.{_WAIT}",
    ),
    503: ("Server Error", f"The service you requested is not available yet.{_WAIT}"),
}

_LINES = {429: "Rate exceeded.", 504: "upstream request timeout"}
"""Statuses that are told in a line of text, not as a page."""

_ROBOT = """<!DOCTYPE html>
<html lang=en>
  <meta charset=utf-8>
  <meta name=viewport content="initial-scale=1, minimum-scale=1, width=device-width">
  <title>Error {status} ({phrase})!!1</title>
  <a href=//www.google.com/><span id=logo aria-label=Google></span></a>
  <p><b>{status}.</b> <ins>That\u2019s an error.</ins>
  <p>The requested URL <code>{url}</code> was not found on this server.  \
<ins>That\u2019s all we know.</ins>
"""


@frozen
class Page:
    """A response of the front itself.

    `robot` makes it the page with the robot, which has no ``Server``: what callers get of names
    and paths behind which there is no service.
    """

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    robot: bool = False

    @property
    def phrase(self) -> str:
        """What stands behind the status."""
        return HTTPStatus(self.status).phrase

    def content(self, url: str) -> tuple[str, bytes]:
        """Return media type and body of the answer to a request for `url`."""
        if self.robot:
            shown = html.escape(url)
            page = _ROBOT.format(status=self.status, phrase=self.phrase, url=shown)
            return "text/html; charset=UTF-8", page.encode()
        if line := _LINES.get(self.status):
            return "text/plain", line.encode()
        headline, text = _HEADLINES.get(self.status, (self.phrase, self.phrase))
        return "text/html; charset=UTF-8", _html(self.status, headline, text, url).encode()

    def fields(self, url: str, now: float) -> list[tuple[str, str]]:
        """Return the fields that come with `content`; `now` in Unix seconds for Date."""
        kind, body = self.content(url)
        its_own = [("Referrer-Policy", "no-referrer")] if self.robot else []
        return [
            *self.headers,
            ("Content-Type", kind),
            *its_own,
            ("Content-Length", str(len(body))),
            ("Date", formatdate(now, usegmt=True)),
            *([] if self.robot else [("Server", "Google Frontend")]),
        ]

    def render(self, url: str, *, now: float, method: str = "GET", close: bool = False) -> bytes:
        """Return the whole response to a request for `url`; `now` in Unix seconds for Date."""
        lines = [
            f"HTTP/1.1 {self.status} {self.phrase}",
            *(f"{name}: {value}" for name, value in self.fields(url, now)),
            *(["Connection: close"] if close else []),
        ]
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        return head if method == "HEAD" else head + self.content(url)[1]


def _html(status: int, headline: str, text: str, url: str) -> str:
    sentence = text.format(url=f"<code>{html.escape(url)}</code>")
    return (
        "<html><head>\n"
        '<meta http-equiv="content-type" content="text/html;charset=utf-8">\n'
        f"<title>{status} {headline}</title>\n"
        "</head>\n<body text=#000000 bgcolor=#ffffff>\n"
        f"<h1>Error: {headline}</h1>\n<h2>{sentence}</h2>\n<h2></h2>\n"
        "</body></html>\n"
    )
