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

_HEADLINES = {
    400: ("Bad Request", "Your client has issued a malformed or illegal request."),
    401: ("Unauthorized", "Your client does not have permission to the requested URL {url}."),
    403: ("Forbidden", "Your client does not have permission to get URL {url} from this server."),
    404: ("Page not found", "The requested URL was not found on this server."),
    429: ("Rate exceeded", "Rate exceeded."),
    500: ("Server Error", "The server encountered an error. Please try again in 30 seconds."),
    503: ("Service Unavailable", "Service Unavailable"),
}


@frozen
class Page:
    """A response of the front itself."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()

    def render(self, url: str, *, now: float, method: str = "GET", close: bool = False) -> bytes:
        """Return the whole response to a request for `url`; `now` in Unix seconds for Date."""
        phrase = HTTPStatus(self.status).phrase
        title, text = _HEADLINES.get(self.status, (phrase, phrase))
        body = _html(f"{self.status} {phrase}", title, text, url).encode()
        lines = [
            f"HTTP/1.1 {self.status} {phrase}",
            *(f"{name}: {value}" for name, value in self.headers),
            "Content-Type: text/html; charset=UTF-8",
            f"Content-Length: {len(body)}",
            f"Date: {formatdate(now, usegmt=True)}",
            "Server: Google Frontend",
            *(["Connection: close"] if close else []),
        ]
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        return head if method == "HEAD" else head + body


def _html(title: str, headline: str, text: str, url: str) -> str:
    sentence = text.format(url=f"<code>{html.escape(url)}</code>")
    return (
        "<html><head>\n"
        '<meta http-equiv="content-type" content="text/html;charset=utf-8">\n'
        f"<title>{title}</title>\n"
        "</head>\n<body text=#000000 bgcolor=#ffffff>\n"
        f"<h1>Error: {headline}</h1>\n<h2>{sentence}</h2>\n<h2></h2>\n"
        "</body></html>\n"
    )
