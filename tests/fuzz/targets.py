"""What is fuzzed, and with what it begins.

A target takes bytes and fails where something does not hold that must hold for all bytes.  What
is kept in ``corpus`` are inputs that reach further than others, or once found a fault.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import uvloop

from tests.fakes.framed import PREFACE
from tests.fuzz import answers, network
from tests.fuzz.kept import Growth

CORPUS = Path(__file__).parent / "corpus"
_WIRE = Path(__file__).parents[1] / "wire" / "corpus"


@dataclass(frozen=True)
class Target:
    """One entry into the program."""

    name: str
    run: Callable[[bytes], Awaitable[None]]
    seeds: Sequence[bytes]
    """What every run begins with, beside the corpus."""
    pieces: Sequence[bytes]
    """What the inputs are made of, beside single bytes."""

    @property
    def corpus(self) -> Path:
        """Where inputs are kept, one a line, with escapes as in Python."""
        return CORPUS / f"{self.name}.txt"

    def inputs(self) -> list[bytes]:
        """Return the seeds and what is kept."""
        lines = self.corpus.read_bytes().split() if self.corpus.exists() else []
        kept = [line.decode("unicode_escape").encode("latin-1") for line in lines]
        return list(dict.fromkeys([*self.seeds, *kept]))

    def keep(self, inputs: Sequence[bytes]) -> None:
        """Keep these inputs, beside the seeds."""
        new = sorted(set(inputs) - set(self.seeds) - {b""})
        lines = [data.decode("latin-1").encode("unicode_escape") for data in new]
        CORPUS.mkdir(exist_ok=True)
        self.corpus.write_bytes(b"".join(line.replace(b" ", b"\\x20") + b"\n" for line in lines))

    def execute(self, data: bytes, growth: Growth | None = None) -> None:
        """Run once, on a loop of its own, and raise what does not hold; count it in `growth`."""
        failures: list[str] = []

        async def main() -> None:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: failures.append(str(context)))
            async with asyncio.timeout(20):
                await self.run(data)

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())
        assert failures == [], failures
        if growth is not None:
            growth.note()


def damage(data: bytes, pieces: Sequence[bytes], dice: random.Random) -> bytes:
    """Return `data` changed in a few places."""
    for _ in range(dice.randint(1, 5)):
        at, size = dice.randint(0, len(data)), dice.choice((0, 0, 1, 2, 4, 16))
        piece = dice.choice(pieces) if dice.random() < 0.6 else dice.randbytes(dice.randint(0, 3))
        data = data[:at] + piece + data[at + size :]
    return data


_CLAIMS = json.dumps({"aud": answers.AUDIENCE, "exp": answers.NOW + 3600, "email": "a@b"}).encode()
_ID_TOKEN = b"e30." + base64.urlsafe_b64encode(_CLAIMS).rstrip(b"=") + b".c2ln"
_ACCESS_TOKEN = json.dumps(
    {"access_token": "ya29.abc", "expires_in": 3600, "token_type": "Bearer",
     "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
     "accessToken": "ya29.def", "expireTime": "2027-01-15T09:00:00Z"}
).encode()  # fmt: skip


def _answer(body: bytes, status: bytes = b"200 OK", fields: bytes = b"") -> bytes:
    date = b"Date: Fri, 15 Jan 2027 08:00:00 GMT\r\nMetadata-Flavor: Google\r\n"
    length = b"Content-Length: %d\r\n\r\n" % len(body)
    return b"HTTP/1.1 " + status + b"\r\n" + date + fields + length + body


_HTTP = (
    b"\r\n", b"\r", b"\n", b"\r\n\r\n", b"\0", b" ", b"\t", b":", b",", b";", b"0", b"-", b"\xff",
    b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n",
    b"Connection: x-serverless-authorization\r\n", b"X-Serverless_Authorization: Bearer x\r\n",
    b"Expect: 100-continue\r\n", b"Upgrade: websocket\r\nConnection: upgrade\r\n", b"HTTP/1.0",
    b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\n", b"TE: trailers\r\n", b"0\r\n\r\n",
    b"5\r\nhello\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"Trailer: x\r\n", b"206", b"304",
)  # fmt: skip
_REQUESTS = (
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"POST /a?b=c HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    (
        b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\r\n"
        b"5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n"
    ),
    b"HEAD / HTTP/1.0\r\n\r\n",
    # What a caller might try with the identity header.
    b"GET / HTTP/1.1\r\nHost: a\r\nx-serverless-Authorization: Bearer x\r\n\r\n",
    b"GET / HTTP/1.1\r\nX_Serverless-Authorization: Bearer x\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x-serverless-authorization\r\n\r\n",
    PREFACE + b"\0\0\0\4\0\0\0\0\0",
)
_RESPONSES = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\nto the end",
    b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: a\r\nConnection: upgrade\r\n\r\nraw",
)
# See `network._steps`: kind, stream, flags, length, payload.
_PLAYS = (
    b"\x0a\1\1\1\0", b"\x0a\1\0\1\1\0\1\1\5hello", b"\x0a\1\0\1\2\0\1\1\7\0\0\0\0\2ok",
    b"\x0a\1\0\1\4\0\1\0\2ab\x0a\1\1\1\x0d", b"\x0a\1\0\1\5\x0a\1\1\1\4",
    b"\x04\0\0\6\0\4\0\0\0\1\x08\1\0\1\1\x03\1\0\4\0\0\0\x08\x07\0\0\x08\0\0\0\1\0\0\0\0",
)  # fmt: skip
_WAIT = b"\x0b\0\0\0"
# What may only leave once something else has come: windows and tables that settings change while
# an answer is on its way, streams that are given up while they wait.
_OPENED = b"\x0a\1\1\1\0" + _WAIT + b"\4\0\0\6\0\4\0\0\x30\0" + _WAIT
_LATE: Sequence[bytes] = (
    b"\4" + _OPENED,
    b"\x84" + _OPENED,
    b"\0" + b"".join(b"\x0a%c\1\1\0" % each + _WAIT for each in b"\1\3") +
    b"\4\0\0\6\0\1\0\0\0\x40" + _WAIT + b"\x0a\5\1\1\0" + _WAIT,
    b"\1\x0a\1\1\1\0\x0a\3\1\1\0" + _WAIT + b"\3\1\0\4\0\0\0\x08" + _WAIT,
)  # fmt: skip
_LATE_UPSTREAM: Sequence[bytes] = (
    b"\4" + _WAIT + b"\4\0\0\6\0\4\0\0\x30\0" + _WAIT + b"\x0a\3\1\1\4",
    b"\0\4\0\0\6\0\3\0\0\0\1" + _WAIT,
    b"\0\4\0\0\6\0\1\0\0\0\x40" + _WAIT + b"\x0a\1\1\1\4",
    b"\1" + _WAIT + b"\3\3\0\4\0\0\0\2" + _WAIT,
)
_FRAMES = (
    _WAIT,
    b"\4\0\0\6\0\4\0\0\x30\0", b"\4\0\0\6\0\1\0\0\0\x40", b"\4\0\0\6\0\3\0\0\0\1",
    b"\x0a\1\1\1", b"\x0a\3\0\1", b"\0\1\1\2ab", b"\x08\1\0\1\1", b"\4\0\1\0", b"\3\1\0\4",
)  # fmt: skip
_YAML = (
    b"\n", b": ", b"- ", b"{", b"}", b"[", b"]", b"&a ", b"*a", b"<<: ", b"${A}", b"${A:-b}", b"$$",
    b'"', b"'", b"#", b"|\n ", b"!!int ", b"\0A=b\n", b"off", b"true", b"1e9", b"5s", b"64KiB",
    b"upstream: ", b"service: a", b"path: /", b"host: ", b"listen: ", b"auth: ", b"\t", b"\xc3\xa9",
)  # fmt: skip
_CONFIGS = (
    b"routes:\n  a:\n    upstream: https://a.run.app\n",
    b"""admin: off
listen: [8081, unix:/x]
defaults:
  timeouts: {connect: 5s}
routes:
  a: {path: /a, strip_path: true, upstream: [https://a.b, http://127.0.0.1:1]}
  b: {host: '*.b', service: [c.d, e], audience: "${A:-x}", limits: {queue: 1}}
  c: {listen: 8082, upstream: https://a.googleapis.com, auth: access_token}
\0A=https://a
""",
)
_JSON = (b'"', b"{", b"}", b"[", b"null", b"1e999", b"true", b"-", b".", b"\\u0000", b"NaN", b"=")

TARGETS = {
    target.name: target
    for target in (
        Target("requests", network.requests, _REQUESTS, _HTTP),
        Target("requests_to_frames", network.requests_to_frames, _REQUESTS, _HTTP),
        Target(
            "responses",
            network.responses,
            [bytes([who]) + each for who in (0, 1, 2, 128, 129) for each in _RESPONSES],
            _HTTP,
        ),
        Target(
            "frames",
            network.frames,
            [*(who + play for who in (b"\0", b"\x80", b"\4") for play in _PLAYS), *_LATE],
            _FRAMES,
        ),
        Target(
            "upstream_frames",
            network.upstream_frames,
            [
                *(who + play for who in (b"\0", b"\x80", b"\4") for play in _PLAYS),
                *_LATE_UPSTREAM,
            ],
            _FRAMES,
        ),
        Target(
            "admin",
            network.admin,
            [
                b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n",
                b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: text/plain;q=0.5\r\n\r\n",
                b"POST /quitquitquit HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n",
                b"GET /?a=b&c HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://x\r\n\r\n",
            ],
            _HTTP,
        ),
        Target("config", answers.config, _CONFIGS, _YAML),
        Target(
            "jwt",
            answers.jwt,
            [
                _ID_TOKEN,
                _CLAIMS,
                _CLAIMS.replace(b"1800003600.0", b"1e999"),
                b'{"a": ' + b"[" * 1500 + b"]" * 1500 + b"}",
                b"eyJ.eyJ.x",
            ],
            _JSON,
        ),
        Target(
            "metadata",
            answers.metadata,
            [_answer(_ID_TOKEN), _answer(_ACCESS_TOKEN), _answer(b"no", b"404 Not Found")],
            (*_HTTP, *_JSON),
        ),
        Target(
            "google",
            answers.google,
            [_answer(_ACCESS_TOKEN), _answer(b'{"error": {"message": "no"}}', b"403 Forbidden")],
            (*_HTTP, *_JSON),
        ),
        Target(
            "connect",
            answers.connect,
            [
                b"HTTP/1.1 200 Connection established\r\n\r\nrest",
                b'HTTP/1.0 407 No\r\nProxy-Authenticate: Basic realm="a", Digest b\r\n\r\n',
            ],
            _HTTP,
        ),
    )
}

# Failures of strangers are logged; a bug is what `Wired` looks for.
logging.getLogger("proxy").addHandler(logging.NullHandler())
