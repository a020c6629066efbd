"""Where tokens come from, in a bad mood: the metadata server, Google's token services, a file.

For each kind of credentials there is a lane whose tokens come that way (`make_lanes`), and relays
stand before each of the services.  What those say, as long as all is calm, is right.

By the seed, the tokens of a run are used for two seconds, so that every call may be the one that
needs another, or for six, in whose second half they are refreshed as well as that goes.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final, Protocol

from aiohttp import web

from proxy.emulator.access import ALL_OF_CLOUD, AccessTokens, Grant
from proxy.emulator.answers import FLAVOR, JSON
from proxy.emulator.api import ApiService
from proxy.emulator.claims import CALLER
from proxy.emulator.faults import Answer, Exchange, Fault, Minted, NoFlavor, Reset
from proxy.emulator.google import MEMBER, TokenServices
from proxy.emulator.keys import Keys
from proxy.emulator.metadata import MetadataServer
from proxy.emulator.service import ProtectedService
from tests.chaos import invariants, relay
from tests.chaos.relay import Relay

SHORT: Final = invariants.USE_MARGIN + 2.0
"""Seconds that most tokens are good for."""

LONGER: Final = invariants.USE_MARGIN + 6.0
"""The same of others: refreshed after three seconds, they are good for three more."""

_ACCOUNT: Final = "orders@project.iam.gserviceaccount.com"
_ALTERED: Final = ("another", "expired")

TOKEN_FAULTS: tuple[Fault, ...] = (
    Answer(status=500),
    Answer(status=429, headers={"Retry-After": "1"}),
    Answer(status=200, body="<html>not a token</html>"),
    Answer(status=200, body=b"\0\xff" * 2_000_000),
    Minted(lifetime=-60),
    Minted(lifetime=10),
    Minted(claims={"aud": "https://another.example"}),
    Minted(claims={"exp": "soon"}),
    NoFlavor(),
    Reset(),
    Reset(sent=b"HTTP/1.1 200 OK\r\nContent-Le"),
)

_NO_ACCESS: Final[tuple[dict[str, object], ...]] = (
    {"expires_in": 10},
    {"expires_in": -60},
    {"expires_in": "soon"},
    {"token_type": "mac"},
    {"access_token": "two words"},
    {"access_token": None},
)
"""What makes a token of Google's one that must not be used."""

_SERVICE_FAULTS: Final[tuple[tuple[int, Any], ...]] = (
    (500, "<html>Error</html>"),
    (503, {"error": "backend_error", "error_description": "try again"}),
    (429, {"error": {"code": 429, "message": "Quota exceeded", "status": "RESOURCE_EXHAUSTED"}}),
    (403, {"error": {"code": 403, "message": "Denied", "status": "PERMISSION_DENIED"}}),
    (401, {"error": {"code": 401, "message": "No", "status": "UNAUTHENTICATED"}}),
    (400, {"error": "invalid_grant", "error_description": "Token has been revoked."}),
    (200, "<html>not a token</html>"),
    (200, {}),
    (200, []),
    (200, {"access_token": 5, "id_token": 5, "token": 5, "accessToken": 5}),
    (200, {"access_token": "a b", "token_type": "Bearer", "expires_in": 100, "accessToken": "a b"}),
    (200, "x" * 4_000_000),
)
"""What Google's services answer instead of a token."""


class World(Protocol):
    """Where lanes are made: `Network`."""

    folder: Path

    @property
    def app_address(self) -> tuple[str, int]: ...
    async def relay(
        self, name: str, target: relay.Address, faults: tuple[str, ...], **more: Any
    ) -> Relay: ...
    async def serve(self, lane: str, service: ProtectedService) -> None: ...
    def lane(self, name: str, route: Mapping[str, Any], **more: Any) -> None: ...


class Moody:
    """A metadata server that often has no token, and for most none that lasts.

    ID tokens whose audience has one of the words `lasting` in it outlast a run.
    """

    def __init__(self, seed: int, lasting: tuple[str, ...], access: AccessTokens) -> None:
        self.met: Counter[str] = Counter()
        self.is_calm = True
        """Whether every answer is a good one."""
        self._lasting = lasting
        self._access = access
        self._seconds = lifetime_of(seed)
        self._choice = random.Random(f"{seed}/tokens")  # noqa: S311 (repeatable)

    async def respond(self, exchange: Exchange) -> web.StreamResponse:
        """Answer well two times out of three."""
        is_good = self.is_calm or self._choice.random() < 0.67
        if exchange.request.path.endswith("/token"):
            return await self._access_token(exchange, is_good=is_good)
        if is_good:
            audience = exchange.request.query.get("audience", "")
            lasts = any(word in audience for word in self._lasting)
            return exchange.mint(None if lasts else SHORT, {})
        return await self._fail(self._choice.choice(TOKEN_FAULTS), exchange)

    async def _access_token(self, exchange: Exchange, *, is_good: bool) -> web.StreamResponse:
        odd: dict[str, object] = {}
        if not is_good:
            # None of them is an ID token's own.
            faults = [each for each in TOKEN_FAULTS if not isinstance(each, Minted)]
            if self._choice.random() < 0.6:
                return await self._fail(self._choice.choice(faults), exchange)
            odd = self._choice.choice(_NO_ACCESS)
            self.met[f"token: access token with {odd}"] += 1
        until = time.time() + self._seconds  # noqa: TID251 (as tokens have it)
        token = self._access.issue(Grant(CALLER.email, (ALL_OF_CLOUD,), until))
        good = {"access_token": token, "expires_in": int(self._seconds), "token_type": "Bearer"}
        return web.json_response({**good, **odd}, headers={FLAVOR: "Google"}, content_type=JSON)

    async def _fail(self, fault: Fault, exchange: Exchange) -> web.StreamResponse:
        self.met[f"token: {_name(fault)}"] += 1
        return await fault.respond(exchange)


def _name(fault: Fault) -> str:
    match fault:
        case Answer():
            return f"{fault.status}, {len(fault.body)} bytes"
        case Minted():
            return f"lifetime {fault.lifetime}" if fault.lifetime else f"claims {fault.claims}"
        case Reset():
            return f"reset after {len(fault.sent)} bytes"
    return type(fault).__name__


def lifetime_of(seed: int) -> float:
    """Return how many seconds the tokens of the lanes here are good for, in the run of a seed."""
    return random.Random(f"{seed}/lifetime").choice((SHORT, LONGER))  # noqa: S311 (repeatable)


class MoodyServices:
    """Has Google's token services answer every third request with something that is no token."""

    def __init__(self, seed: int, google: TokenServices) -> None:
        self.met: Counter[str] = Counter()
        self.is_calm = True
        self._google = google
        self._choice = random.Random(f"{seed}/services")  # noqa: S311 (repeatable)

    async def run(self) -> None:
        """Choose, after each request, what becomes of the next one."""
        seen = 0
        while True:
            await self._google.requests.reached(seen + 1)
            seen = len(self._google.requests)
            if not self.is_calm and self._choice.random() < 0.33:
                status, body = self._choice.choice(_SERVICE_FAULTS)
                self._google.answer(status, body)
                self.met[f"token services: {status}, {len(str(body))} bytes"] += 1


class TokenFile:
    """A file in which somebody keeps a token, and which often has none."""

    def __init__(self, seed: int, path: Path, keys: Keys, audience: str) -> None:
        self.met: Counter[str] = Counter()
        self.is_calm = True
        self.path = path
        self._mint = MetadataServer(keys).mint
        self._audience = audience
        self._seconds = lifetime_of(seed)
        self._choice = random.Random(f"{seed}/file")  # noqa: S311 (repeatable)
        self._put(self._token())

    async def run(self) -> None:
        """Write a good token, or something else, again and again."""
        while True:
            await asyncio.sleep(self._choice.uniform(0.1, 0.8))
            if self.is_calm or self._choice.random() < 0.67:
                self._put(self._token())
            else:
                self._spoil(self._choice.choice(("gone", "empty", "cut", "folder", *_ALTERED)))

    def _spoil(self, how: str) -> None:
        self.met[f"token file: {how}"] += 1
        if how in ("gone", "folder"):
            _remove(self.path)
        if how == "folder":
            self.path.mkdir()
        elif how != "gone":
            self._put(
                "" if how == "empty" else self._token()[:100] if how == "cut" else self._odd(how)
            )

    def _odd(self, how: str) -> str:
        return self._token(aud="https://another.example") if how == "another" else self._token(-60)

    def _token(self, lifetime: float | None = None, **claims: Any) -> str:
        seconds = self._seconds if lifetime is None else lifetime
        return self._mint.odd_id_token(
            CALLER, self._audience, None, lifetime=seconds, changes=claims
        )

    def _put(self, text: str) -> None:
        beside = self.path.with_suffix(".new")
        beside.write_text(text)
        _remove(self.path)
        beside.replace(self.path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    with suppress(FileNotFoundError):
        path.unlink()


class Sources:
    """All of them, and the lanes whose tokens they have."""

    def __init__(self, seed: int, world: World, keys: Keys, lasting: tuple[str, ...]) -> None:
        self.access = AccessTokens()
        self.google = TokenServices(keys, access=self.access, lifetime=lifetime_of(seed))
        self.metadata = MetadataServer(keys, access=self.access)
        self.moody = Moody(seed, lasting, self.access)
        self.environ: dict[str, str] = {}
        """What leads the proxy to them, once they serve."""
        self._keys = keys
        self._seed = seed
        self._world = world
        self._services = MoodyServices(seed, self.google)
        self._file = TokenFile(seed, world.folder / "token", keys, "https://token-file.example")
        self._tasks: list[asyncio.Task[None]] = []

    def be(self, *, calm: bool) -> None:
        """Be moody from now on, or not."""
        for each in (self.moody, self._services, self._file):
            each.is_calm = calm

    @property
    def met(self) -> Counter[str]:
        """Faults that happened."""
        return self.moody.met + self._services.met + self._file.met

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Sources]:
        """All of them are calm, and the lanes are there."""
        async with self.google, self.metadata:
            self.metadata.inject(self.moody, times=math.inf, path="/identity")
            self.metadata.inject(self.moody, times=math.inf, path="/token")
            loop = asyncio.get_running_loop()
            self._tasks = [loop.create_task(each.run()) for each in (self._services, self._file)]
            await self._make_lanes()
            try:
                yield self
            finally:
                for task in self._tasks:
                    task.cancel()
                done = await asyncio.gather(*self._tasks, return_exceptions=True)
        failed = [each for each in done if isinstance(each, Exception)]
        if failed:
            raise ExceptionGroup("a source of tokens failed", failed)

    async def _make_lanes(self) -> None:
        world = self._world
        host, port = self.metadata.host.split(":")
        before = await world.relay("metadata", (host, int(port)), relay.PLAIN)
        metadata = "{}:{}".format(*before.address)
        google = {
            name: await self._before_google(name) for name in ("token endpoint", "STS", "IAM")
        }
        self.google.grant(f"serviceAccount:{CALLER.email}", _ACCOUNT)
        self.google.grant(MEMBER, _ACCOUNT)
        self.environ = {
            "GCE_METADATA_HOST": metadata,
            "GCE_METADATA_IP": metadata,
            "GOOGLE_APPLICATION_CREDENTIALS": str(self._federated(google["STS"], google["IAM"])),
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_IAMCREDENTIALS": google["IAM"],
        }
        key = {**self.google.key_file(), "token_uri": f"{google['token endpoint']}/token"}
        (world.folder / "key.json").write_text(json.dumps(key))
        credentials: dict[str, Any] = {
            "key": {"service_account_file": str(world.folder / "key.json")},
            "impersonated": {"impersonate": _ACCOUNT, "source": "metadata"},
            "federated": "auto",
        }
        for name, each in {
            **credentials,
            "token-file": {"token_file": str(self._file.path)},
        }.items():
            await self._id_tokens(name, each)
        for name, each in {**credentials, "metadata": "metadata"}.items():
            await self._access_tokens(f"access-{name}", each)

    async def _before_google(self, name: str) -> str:
        """Return the origin of a relay to Google's services."""
        host, port = self.google.url.removeprefix("http://").split(":")
        there = await self._world.relay(name, (host, int(port)), relay.PLAIN)
        return "http://{}:{}".format(*there.address)

    def _federated(self, sts: str, iam: str) -> Path:
        """Write the credentials of a federated workload that acts as an account."""
        subject, file = self._world.folder / "subject", self._world.folder / "federated.json"
        subject.write_text(self.google.subject_token)
        info = self.google.federated_file(subject, _ACCOUNT)
        for name, origin in (("token_url", sts), ("service_account_impersonation_url", iam)):
            info[name] = info[name].replace(self.google.url, origin)
        file.write_text(json.dumps(info))
        return file

    async def _id_tokens(self, name: str, credentials: object) -> None:
        audience = f"https://{name}.example"
        service = ProtectedService(self._keys, audience, app=self._world.app_address)
        await self._world.serve(name, service)
        self._lane(name, service, {"audience": audience, "credentials": credentials})

    async def _access_tokens(self, name: str, credentials: object) -> None:
        service = ApiService(self.access, app=self._world.app_address)
        await self._world.serve(name, service)
        route = {"auth": "access_token", "access_token_hosts": ["127.0.0.1"]}
        self._lane(name, service, {**route, "credentials": credentials})

    def _lane(self, name: str, service: ProtectedService, route: dict[str, Any]) -> None:
        self._world.lane(name, {"upstream": service.url, **route}, callers=1)
