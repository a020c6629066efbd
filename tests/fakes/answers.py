"""Error answers as they come from Cloud Run: Google's front end's own, and applications'.

The front end's were copied from public reports of users; Google documents their meaning, not
their form.  Applications' are what the frameworks send by default, behind the front end, which
writes ``Server`` on them, too.
"""

from __future__ import annotations

from dataclasses import dataclass

Fields = tuple[tuple[str, str], ...]

HTML = ("content-type", "text/html; charset=UTF-8")
TEXT = ("content-type", "text/plain")
SERVER = ("server", "Google Frontend")
ALT_SVC = ("alt-svc", 'h3=":443"; ma=2592000,h3-29=":443"; ma=2592000')
TRACE = ("x-cloud-trace-context", "88d8898e58c9ae9c4811129affb6c917;o=1")
DATE = ("date", "Sat, 10 Oct 2026 19:41:42 GMT")


@dataclass(frozen=True)
class Answer:
    """An error as it was seen."""

    name: str
    status: int
    fields: Fields
    body: bytes

    def __str__(self) -> str:
        return self.name

    @property
    def pairs(self) -> list[tuple[bytes, bytes]]:
        """The fields with Content-Length."""
        sized = (*self.fields, ("content-length", str(len(self.body))))
        return [(name.encode(), value.encode()) for name, value in sized]

    @property
    def wire(self) -> bytes:
        """The answer in HTTP/1.1."""
        lines = b"".join(b"%b: %b\r\n" % pair for pair in self.pairs)
        return b"HTTP/1.1 %d No\r\n%b\r\n%b" % (self.status, lines, self.body)


def page(status: int, headline: str, sentence: str) -> bytes:
    """Return the page of Cloud Run's front end."""
    return (
        "<html><head>\n"
        '<meta http-equiv="content-type" content="text/html;charset=utf-8">\n'
        f"<title>{status} {headline}</title>\n</head>\n"
        f"<body text=#000000 bgcolor=#ffffff>\n<h1>Error: {headline}</h1>\n"
        f"<h2>{sentence}</h2>\n<h2></h2>\n</body></html>\n"
    ).encode()


def robot(status: int, phrase: str, sentence: str) -> bytes:
    """Return the page with the robot."""
    return (
        "<!DOCTYPE html>\n<html lang=en>\n  <meta charset=utf-8>\n"
        '  <meta name=viewport content="initial-scale=1, minimum-scale=1, width=device-width">\n'
        f"  <title>Error {status} ({phrase})!!1</title>\n  <style>\n"
        "    *{margin:0;padding:0}html,code{font:15px/22px arial,sans-serif}html{background:#fff}"
        "* > body{background:url(//www.google.com/images/errors/robot.png) 100% 5px no-repeat}\n"
        "  </style>\n  <a href=//www.google.com/><span id=logo aria-label=Google></span></a>\n"
        f"  <p><b>{status}.</b> <ins>That\u2019s an error.</ins>\n"
        f"  <p>{sentence}  <ins>That\u2019s all we know.</ins>\n"
    ).encode()


_URL = "<code>/orders?id=7</code>"
_WAIT = "<p>Please try again in 30 seconds."
_OURS = (HTML, DATE, SERVER, ALT_SVC)
_DESCRIBED = (
    "www-authenticate",
    'Bearer error="invalid_token" error_description="The access token could not be verified"',
)

PLATFORM = (
    Answer(
        "token refused",
        401,
        _OURS,
        page(
            401,
            "Unauthorized",
            f"Your client does not have permission to the requested URL {_URL}.",
        ),
    ),
    Answer("token refused, described", 401, (_DESCRIBED, DATE, SERVER), b""),
    Answer(
        "no invoker",
        403,
        (*_OURS, TRACE),
        page(
            403,
            "Forbidden",
            f"Your client does not have permission to get URL {_URL} from this server.",
        ),
    ),
    Answer(
        "internal ingress",
        404,
        _OURS,
        page(404, "Page not found", "The requested URL was not found on this server."),
    ),
    Answer(
        "no such service, or a path like /healthz",
        404,
        (HTML, ("referrer-policy", "no-referrer"), DATE, ALT_SVC),
        robot(404, "Not Found", f"The requested URL {_URL} was not found on this server."),
    ),
    Answer("no instance free", 429, (TEXT, DATE, SERVER, TRACE), b"Rate exceeded."),
    Answer("no instance free, as HTML", 429, (HTML, DATE, SERVER), b"Rate exceeded."),
    Answer(
        "no instance in time",
        500,
        _OURS,
        page(
            500,
            "Server Error",
            f"The server encountered an error and could not complete your request.{_WAIT}",
        ),
    ),
    Answer(
        "bad gateway",
        502,
        (HTML, DATE, ("via", "1.1 google")),
        page(
            502,
            "Server Error",
            f"The server encountered a temporary error and could not complete your request.{_WAIT}",
        ),
    ),
    Answer(
        "not available",
        503,
        (*_OURS, ("retry-after", "30")),
        page(503, "Server Error", f"The service you requested is not available yet.{_WAIT}"),
    ),
    Answer("instance failed", 503, (TEXT, DATE, SERVER), b"Service Unavailable"),
    Answer(
        "instance ended",
        503,
        (TEXT, DATE, SERVER),
        b"upstream connect error or disconnect/reset before headers. reset reason: connection"
        b" termination",
    ),
    Answer("too slow", 504, (TEXT, DATE, SERVER), b"upstream request timeout"),
)

_JSON = ("content-type", "application/json")
_SAYS_503 = page(503, "Server Error", f"The service you requested is not available yet.{_WAIT}")

APPLICATIONS = (
    Answer("Express sendStatus", 503, (("x-powered-by", "Express"),
        ("content-type", "text/plain; charset=utf-8"), ("etag", 'W/"13-abc"'), DATE, SERVER),
        b"Service Unavailable"),
    Answer("Go http.Error", 503, (("content-type", "text/plain; charset=utf-8"),
        ("x-content-type-options", "nosniff"), DATE, SERVER), b"Service Unavailable\n"),
    Answer("Go NotFound", 404, (("content-type", "text/plain; charset=utf-8"),
        ("x-content-type-options", "nosniff"), DATE, SERVER), b"404 page not found\n"),
    Answer("Express finalhandler", 404, (("content-security-policy", "default-src 'none'"),
        ("x-content-type-options", "nosniff"), ("content-type", "text/html; charset=utf-8"), DATE,
        SERVER), b'<!DOCTYPE html>\n<html lang="en">\n<head>\n<title>Error</title>\n</head>\n'
        b"<body>\n<pre>Cannot GET /x</pre>\n</body>\n</html>\n"),
    Answer("FastAPI", 404, (_JSON, DATE, SERVER), b'{"detail":"Not Found"}'),
    Answer("Flask", 404, (("content-type", "text/html; charset=utf-8"), DATE, SERVER),
        b"<!doctype html>\n<html lang=en>\n<title>404 Not Found</title>\n<h1>Not Found</h1>\n"
        b"<p>The requested URL was not found on the server. If you entered the URL manually"
        b" please check your spelling and try again.</p>\n"),
    Answer("nginx", 403, (("content-type", "text/html"), DATE, SERVER),
        b"<html>\r\n<head><title>403 Forbidden</title></head>\r\n<body>\r\n<center>"
        b"<h1>403 Forbidden</h1></center>\r\n<hr><center>nginx/1.29.8</center>\r\n</body>\r\n"
        b"</html>\r\n"),
    Answer("tRPC", 401, (_JSON, DATE, SERVER),
        b'{"error":{"message":"UNAUTHORIZED","code":-32001,"data":{"code":"UNAUTHORIZED"}}}'),
    Answer("a user's token", 401, (("www-authenticate", 'Bearer error="invalid_token"'), DATE,
        SERVER), b""),
    Answer("a gateway in a container", 503, (_JSON, ("x-envoy-decorator-operation", "ingress"),
        DATE, SERVER), b'{"message":"upstream connect error or disconnect/reset before headers.'
        b' reset reason: connection termination","code":503}'),
    Answer("Envoy in a container", 503, (TEXT, DATE, ("server", "envoy")),
        b"upstream connect error or disconnect/reset before headers. reset reason: overflow"),
    Answer("a line without the front end", 429, (TEXT, DATE), b"Rate exceeded."),
    Answer("more than the line", 429, (TEXT, DATE, SERVER), b"Rate exceeded. Wait for 3 s."),
    Answer("a session", 503, (HTML, DATE, SERVER, ("set-cookie", "session=1")), _SAYS_503),
    Answer("another server", 503, (HTML, DATE, ("server", "nginx")), _SAYS_503),
    Answer("another status", 500, (HTML, DATE, SERVER), _SAYS_503),
    Answer("no error", 418, (HTML, DATE, SERVER), page(418, "Teapot", "Rate exceeded.")),
    Answer("another type", 503, (_JSON, DATE, SERVER), _SAYS_503),
    Answer("no type", 503, (DATE, SERVER), _SAYS_503),
    Answer("more than the page", 503, (HTML, DATE, SERVER), _SAYS_503 + b"<p>More.</p>"),
    Answer("a script in the page", 503, (HTML, DATE, SERVER),
        _SAYS_503.replace(b"<p>", b"<script>")),
    Answer("another sentence", 503, (HTML, DATE, SERVER),
        page(503, "Server Error", "We are moving house.")),
    Answer("nothing", 404, (HTML, DATE, SERVER), b""),
)  # fmt: skip
