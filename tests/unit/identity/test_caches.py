"""The registry: one cache for each credentials and audience, for the life of the process."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.clock import Clocks
from proxy.config.credentials import CREDENTIALS
from proxy.config.model import (
    AutoCredentials,
    Credentials,
    GcloudCredentials,
    Impersonate,
    MetadataCredentials,
    ServiceAccountFile,
    TokenFile,
)
from proxy.errors import TokenUnavailable
from proxy.identity.caches import OPEN, TokenCaches
from proxy.identity.source import TokenSourceError
from proxy.tasks import THREADS
from tests.fakes.steering import AUDIENCE, jitter, jwt, settle

ENVIRON = {"HOME": "/home/dev", "GCE_METADATA_HOST": "metadata.example:8"}

KINDS: list[tuple[Credentials, str]] = [
    (AutoCredentials(), "metadata server at metadata.example:8"),
    (MetadataCredentials(), "metadata server at metadata.example:8"),
    (
        GcloudCredentials(),
        "credentials file /home/dev/.config/gcloud/application_default_credentials.json",
    ),
    (ServiceAccountFile(Path("/k.json")), "credentials file /k.json"),
    (TokenFile(Path("/t")), "token file /t"),
    (Impersonate("a@b"), "a@b, impersonated with metadata server at metadata.example:8"),
    (
        Impersonate("a@b", (), Impersonate("c@d", (), TokenFile(Path("/t")))),
        "a@b, impersonated with c@d, impersonated with token file /t",
    ),
]


@pytest.fixture
def tokens() -> TokenCaches:
    return TokenCaches(clocks=Clocks(), jitter=jitter(), environ=ENVIRON)


@pytest.mark.parametrize(("credentials", "said"), KINDS, ids=lambda value: type(value).__name__)
def test_every_kind_of_credentials_has_a_source(
    tokens: TokenCaches, credentials: Credentials, said: str
) -> None:
    assert tokens.source(credentials).describe() == said


def test_no_kind_of_credentials_is_opened_as_another() -> None:
    assert set(OPEN) == {kind.cls for kind in CREDENTIALS.values()}


def test_equal_credentials_and_audience_share_one_cache(tokens: TokenCaches) -> None:
    cache = tokens.cache(Impersonate("a@b"), AUDIENCE)

    assert tokens.cache(Impersonate("a@b"), AUDIENCE) is cache
    assert tokens.cache(Impersonate("a@b"), "https://another.example") is not cache
    assert tokens.cache(Impersonate("c@d"), AUDIENCE) is not cache


def test_caches_of_the_same_credentials_share_one_source(tokens: TokenCaches) -> None:
    first, second = (tokens.cache(MetadataCredentials(), aud) for aud in ("a", "b"))

    assert first.source is second.source is tokens.source(MetadataCredentials())


async def test_a_source_whose_calls_hang_keeps_no_other_waiting(
    tokens: TokenCaches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network's file system that does not answer hangs as this file does."""
    monkeypatch.setattr("proxy.identity.files._open", os.open)  # As if a pipe were none.
    pipe = tmp_path / "key.json"
    os.mkfifo(pipe)
    stuck = tokens.source(ServiceAccountFile(pipe))
    fetches = [asyncio.ensure_future(stuck.fetch(f"{AUDIENCE}/{n}")) for n in range(2 * THREADS)]
    await settle()

    async with asyncio.timeout(10):
        with pytest.raises(TokenSourceError, match="does not exist"):
            await tokens.source(ServiceAccountFile(tmp_path / "none.json")).fetch(AUDIENCE)
    assert not any(fetch.done() for fetch in fetches)
    for fetch in fetches:
        fetch.cancel()
    await asyncio.gather(*fetches, return_exceptions=True)


async def test_fetches_of_all_caches_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(jwt(Clocks().wall() + 3600))
    seen: list[tuple[object, str]] = []
    tokens = TokenCaches(
        clocks=Clocks(),
        jitter=jitter(),
        environ={},
        on_fetch=lambda cause, outcome, _: seen.append((cause, outcome)),
    )
    await tokens.cache(TokenFile(path), AUDIENCE).get("orders", 1)
    await tokens.cache(TokenFile(path), "https://another.example").prefetch("billing")

    assert seen == [("orders", "fetched"), ("billing", "failed")]


async def test_closing_closes_every_cache(tokens: TokenCaches) -> None:
    cache = tokens.cache(TokenFile(Path("/missing")), AUDIENCE)
    await tokens.close()

    with pytest.raises(TokenUnavailable, match="shutting down"):
        await cache.get("orders", 1)


def test_no_heavy_library_is_loaded_before_it_is_needed() -> None:
    check = (
        "import sys, random, proxy.clock, proxy.config.model as m, proxy.identity.caches as t;"
        "tokens = t.TokenCaches(clocks=proxy.clock.Clocks(), jitter=random.Random(), environ={});"
        "tokens.cache(m.AutoCredentials(), 'a'); tokens.cache(m.GcloudCredentials(), 'a');"
        "print([n for n in ('google.auth', 'requests', 'aiohttp', 'http.client',"
        " 'cryptography') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"
