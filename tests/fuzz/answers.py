"""What is read whole: configurations, tokens, and the answers of Google's servers and of proxies.

Each may only fail in the way that its docstring says, and what is accepted must be usable.
"""

from __future__ import annotations

import base64
import json
import re
import tempfile
from collections.abc import Awaitable, Sequence
from pathlib import Path

from proxy.clock import Clocks
from proxy.config import show
from proxy.config.loading import parse
from proxy.config.model import AutoCredentials
from proxy.config.problems import ConfigError, Problem
from proxy.config.proxies import HttpProxy
from proxy.emulator.google import TokenServices
from proxy.errors import ProxyError
from proxy.identity.access_token import Scopes, read_access_token
from proxy.identity.caches import TokenCaches
from proxy.identity.metadata import Metadata, MetadataSource
from proxy.identity.source import CLOUD_PLATFORM, TokenSourceError
from proxy.identity.token import USE_MARGIN, read_token
from proxy.plane.connect import HEAD_BYTES, Connect
from tests.fakes import leaks
from tests.fakes.raw_server import raw_server
from tests.fakes.steering import jitter

AUDIENCE = "https://orders.example"
NOW = 1_800_000_000.0
PATIENCE = 5.0

# RFC 9110, 5.5: what a field's value may be made of, without white space.
_FIELD = re.compile(r"[!-~]+")
_FOLDER = Path(tempfile.gettempdir()) / "proxy-fuzz-nothing-is-here"


async def config(data: bytes) -> None:
    """Check a document; behind a NUL follow variables, each a line ``NAME=value``."""
    text, _, rest = data.decode("utf-8", "replace").partition("\0")
    env = dict(line.split("=", 1) for line in rest.split("\n") if "=" in line)
    try:
        found = parse(text, source="fuzzed.yaml", env=env, directory=_FOLDER)
    except ConfigError as error:
        _check_problems(error.problems)
        return
    assert found.routes
    assert hash(found) == hash(parse(text, source="fuzzed.yaml", env=env, directory=_FOLDER))
    show.table(found)
    json.dumps(show.routes_as_json(found))


def _check_problems(problems: Sequence[Problem]) -> None:
    """Fail unless there are some, each of which is one line that says something."""
    assert problems
    for problem in problems:
        assert problem.message, problem
        assert "\n" not in str(problem), problem
    json.dumps(show.problems_as_json(problems))


async def jwt(data: bytes) -> None:
    """Read bytes as an ID token, and as the claims of one: what is accepted can be used."""
    coded = base64.urlsafe_b64encode(data).rstrip(b"=").decode()
    _read_token(data.decode("utf-8", "replace"))
    _read_token(f"e30.{coded}.c2ln")


def _read_token(text: str) -> None:
    """Fail unless an accepted token fits into a header, is good for a while, and is not shown."""
    try:
        token = read_token(text, AUDIENCE, NOW)
    except TokenSourceError as error:
        _check_words(error)
        return
    assert _FIELD.fullmatch(token.value)
    assert token.expires_at > NOW + USE_MARGIN
    assert token.value not in repr(token)


async def metadata(data: bytes) -> None:
    """Answer what is asked of the metadata server, of either kind of token."""
    async with raw_server(data) as server:
        environ = {"GCE_METADATA_HOST": f"127.0.0.1:{server.port}"}
        source = MetadataSource(Metadata(environ, jitter(), _no_pause))
        await _refused_or(_id_token(source))
        await _refused_or(_access_token(source))


async def _no_pause(_: float) -> None:
    """Stand where `asyncio.sleep` stands."""


async def _id_token(source: MetadataSource) -> None:
    token = read_token(await source.fetch(AUDIENCE), AUDIENCE, NOW)
    assert _FIELD.fullmatch(token.value)


async def _access_token(source: MetadataSource) -> None:
    token = read_access_token(await source.authorize(), Scopes(CLOUD_PLATFORM), NOW)
    assert _FIELD.fullmatch(token.value)


async def _refused_or(read: Awaitable[None]) -> None:
    try:
        await read
    except TokenSourceError as error:
        _check_words(error)


async def google(data: bytes) -> None:
    """Answer the Security Token Service and the IAM API of a federated workload alike."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        async with raw_server(data) as server:
            folder, services = Path(name), TokenServices()
            services.url = f"http://127.0.0.1:{server.port}"
            (folder / "subject").write_text("a token of the workload's own")
            info = services.federated_file(folder / "subject", "a@project.iam.gserviceaccount.com")
            (folder / "file.json").write_text(json.dumps(info))
            named = {"GOOGLE_APPLICATION_CREDENTIALS": str(folder / "file.json")}
            caches = TokenCaches(
                clocks=Clocks(wall=lambda: NOW, steady=lambda: 0.0),
                jitter=jitter(),
                environ=services.environ(HOME=name, **named),
            )
            try:
                for wanted in (AUDIENCE, Scopes(CLOUD_PLATFORM)):
                    error = await caches.cache(AutoCredentials(), wanted).prefetch("orders")
                    if error is not None:
                        _check_words(error)
            finally:
                await caches.close()


async def connect(data: bytes) -> None:
    """Answer a CONNECT; what follows the head that opens the tunnel is handed on as it came."""
    proxy = HttpProxy("egress.internal", 3128, "Bearer ya29.of-the-proxy")
    for size in (len(data) or 1, 1):
        asked, rest = Connect(proxy, "orders.example", 443), None
        try:
            for at in range(0, len(data), size):
                if (rest := asked.take(data[at : at + size])) is not None:
                    assert data[: at + size].endswith(rest)
                    assert b"\r\n\r\n" in data
                    break
            assert rest is not None or len(data) <= HEAD_BYTES
        except ProxyError as error:
            _check_words(error)


def _check_words(error: TokenSourceError | ProxyError) -> None:
    """Fail if an error quotes a token, or takes more than a line."""
    said = f"{error.detail} {error.hint}"
    assert leaks.MATERIAL.search(said.replace("[redacted]", "").encode()) is None
    assert "\n" not in said
