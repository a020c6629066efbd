"""All token caches, one for each credentials and what is wanted of them, and their sources.

They live as long as the process: a reload of the configuration finds its tokens
again by their credentials and audience, or scopes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from proxy.clock import Clocks
from proxy.config.egress import of_environment
from proxy.config.model import (
    AutoCredentials,
    Credentials,
    GcloudCredentials,
    Impersonate,
    MetadataCredentials,
    ServiceAccountFile,
    TokenFile,
)
from proxy.config.proxies import Egress
from proxy.deadlines import PatientTimer
from proxy.frozen import frozen
from proxy.identity.access_token import Wanted
from proxy.identity.adc import AutoSource, well_known_file
from proxy.identity.cache import OnFetch, TokenCache
from proxy.identity.fetch import Later
from proxy.identity.files import CredentialsFile
from proxy.identity.google_source import Asker, FileSource, ImpersonatedSource
from proxy.identity.metadata import Metadata, MetadataSource
from proxy.identity.names import Names
from proxy.identity.source import TokenSource
from proxy.identity.target import Endpoints, Means
from proxy.identity.token_file import TokenFileSource
from proxy.resolver import Resolver
from proxy.tasks import Threads

_DIRECT = Egress()

FETCHES_AT_ONCE = 4
"""Per source.  Metadata servers limit their connections, and the IAM API its rate."""


@frozen
class _Opened:
    source: TokenSource
    gate: asyncio.Semaphore


class TokenCaches:
    """Builds sources and caches as they are asked for, and keeps them."""

    def __init__(
        self,
        *,
        clocks: Clocks,
        jitter: Random,
        environ: Mapping[str, str],
        resolver: Resolver | None = None,
        later: Later = PatientTimer,
        on_fetch: OnFetch | None = None,
    ) -> None:
        """Open nothing yet; `on_fetch` is called after every fetch.

        `resolver` finds the metadata server, by default one of its own.
        `environ` is where GCE_METADATA_HOST, GOOGLE_APPLICATION_CREDENTIALS, CLOUDSDK_CONFIG
        and HOME are looked up.
        """
        self.environ = environ
        self._steady = clocks.steady
        self._endpoints = Endpoints.of(environ)
        self._build = partial(
            TokenCache, clocks=clocks, jitter=jitter, later=later, on_fetch=on_fetch
        )
        self._metadata = Metadata(environ, jitter, resolver=resolver or Resolver(clocks.steady))
        self.names = Names(self._metadata)
        """Resolves the names of Cloud Run services."""
        self._environment = of_environment(environ)
        self._opened: dict[tuple[Credentials, Egress], _Opened] = {}
        self._caches: dict[tuple[Credentials, Wanted, Egress], TokenCache] = {}

    def cache(
        self, credentials: Credentials, wanted: Wanted, egress: Egress | None = None
    ) -> TokenCache:
        """Return the one cache for these credentials and this audience, or these scopes.

        Google's APIs are called by `egress`, as a route's upstreams are; by default as the
        environment says.
        """
        key = credentials, wanted, self._way(credentials, egress)
        cache = self._caches.get(key)
        if cache is None:
            opened = self._open(credentials, key[2])
            cache = self._caches[key] = self._build(wanted, opened.source, gate=opened.gate)
        return cache

    def source(self, credentials: Credentials, egress: Egress | None = None) -> TokenSource:
        """Return the one source for these credentials; see `cache`."""
        return self._open(credentials, self._way(credentials, egress)).source

    def _way(self, credentials: Credentials, egress: Egress | None) -> Egress:
        """Return how Google's APIs are reached, the same where none is called."""
        if isinstance(credentials, MetadataCredentials | TokenFile):
            return _DIRECT
        return self._environment if egress is None else egress

    async def close(self) -> None:
        """End every fetch; waiting callers get `TokenUnavailable`."""
        caches, self._caches = self._caches, {}
        opened, self._opened = self._opened, {}
        await asyncio.gather(*(cache.close() for cache in caches.values()))
        await asyncio.gather(*(each.source.close() for each in opened.values()))

    def _open(self, credentials: Credentials, egress: Egress) -> _Opened:
        opened = self._opened.get((credentials, egress))
        if opened is None:
            source = OPEN[type(credentials)](self, credentials, egress)
            opened = _Opened(source, asyncio.Semaphore(FETCHES_AT_ONCE))
            self._opened[credentials, egress] = opened
        return opened

    def metadata(self) -> MetadataSource:
        """Return a source that asks the metadata server."""
        return MetadataSource(self._metadata, self._endpoints.quota_project)

    def file(self, file: CredentialsFile, egress: Egress) -> FileSource:
        """Return a source for a credentials file of Google's."""
        return FileSource(file, self.asker(egress))

    def asker(self, egress: Egress) -> Asker:
        """Return what runs google-auth for one source, with threads of its own.

        Looking up a name that no name server knows cannot be interrupted: one source's stuck
        threads must not be those of another.
        """
        return Asker(Threads(), Means(self._steady, egress), self._endpoints)


def _key_file(path: Path) -> CredentialsFile:
    missing = "Put the key there, or correct the route's service_account_file."
    return CredentialsFile(path, missing, only="service_account")


OPEN: Mapping[type[Credentials], Callable[[TokenCaches, Any, Egress], TokenSource]] = {
    AutoCredentials: lambda caches, _, egress: AutoSource(
        caches.environ, caches.metadata(), partial(caches.file, egress=egress)
    ),
    MetadataCredentials: lambda caches, _, __: caches.metadata(),
    GcloudCredentials: lambda caches, _, egress: caches.file(
        well_known_file(caches.environ), egress
    ),
    ServiceAccountFile: lambda caches, key, egress: caches.file(_key_file(key.path), egress),
    TokenFile: lambda _, file, __: TokenFileSource(file.path),
    Impersonate: lambda caches, account, egress: ImpersonatedSource(
        account, caches.source(account.source, egress), caches.asker(egress)
    ),
}
"""How each kind of credentials is opened; the kinds are those of `config.credentials`."""
