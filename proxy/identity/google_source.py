"""Sources that google-auth knows how to ask, off the event loop and bounded in time.

google-auth itself is imported by the first fetch, in its thread: see `googleauth`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from proxy.config.model import Impersonate
from proxy.deadlines import Within
from proxy.identity.files import CredentialsFile
from proxy.identity.source import (
    ANSWER_WITHIN,
    CLOUD_PLATFORM,
    AccessSource,
    Authority,
    TokenSource,
    TokenSourceError,
)
from proxy.identity.target import Endpoints, Means, Target
from proxy.tasks import Threads

if TYPE_CHECKING:
    from proxy.identity.googleauth import Minted

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

GRACE = 1.0
"""Seconds beyond `ANSWER_WITHIN`: the thread knows what it waits for, so its error is to come
first.  google-auth sleeps between attempts of its own, which only the loop can bound."""


class Asker:
    """Runs what needs google-auth in a thread, bounded in time."""

    def __init__(self, threads: Threads, means: Means, endpoints: Endpoints) -> None:
        self.means = means
        self.endpoints = endpoints
        self._threads = threads

    async def ask(self, call: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Return what `call` returns; raise `TokenSourceError` if it takes too long."""
        name = f"google-auth: {call.__name__.strip('_')}"
        try:
            async with Within(ANSWER_WITHIN + GRACE):
                return await self._threads.run(name, partial(call, *arguments, **named))
        except TimeoutError:
            raise TokenSourceError(f"no answer within {ANSWER_WITHIN:.0f} s", slow=True) from None


class FileSource:
    """Whoever a credentials file stands for: a key, a login, a federated workload.

    The file is read anew for each token, so that a key may be exchanged at any time.
    """

    def __init__(self, file: CredentialsFile, asker: Asker) -> None:
        endpoints = asker.endpoints
        self._file = replace(
            file, token_endpoint=endpoints.token, quota_project=endpoints.quota_project
        )
        self._asker = asker
        self._warned = self._told_scopes = False
        self.fixed_audience: str | None = None
        """Known once a token has been fetched."""

    def describe(self) -> str:
        """Name the file."""
        return f"credentials file {self._file.shown}"

    async def fetch(self, audience: str) -> str:
        """Return an ID token for `audience`, or for gcloud's own where it is a person's login."""
        minted = await self._asker.ask(_id_token, self._file, audience, self._asker.means)
        self.fixed_audience = minted.fixed_audience
        if self.fixed_audience is not None and not self._warned:
            self._warned = True
            log.warning(
                "%s: a gcloud login's ID tokens have gcloud's own audience instead of %s. Cloud "
                "Run accepts them from people who may invoke the service; IAP and others do not.",
                self.describe(),
                audience,
            )
        return minted.token

    async def account(self) -> str | None:
        """Return the service account that the file names, None for people and broken files."""
        try:
            return await self._asker.ask(_account, self._file)
        except TokenSourceError:
            return None

    async def authorize(self, scopes: tuple[str, ...] = ()) -> Authority:
        """Return an access token; a person's login has scopes of its own."""
        wanted = scopes or CLOUD_PLATFORM
        authority = await self._asker.ask(_authorize, self._file, wanted, self._asker.means)
        if authority.fixed_scopes and wanted != CLOUD_PLATFORM and not self._told_scopes:
            self._told_scopes = True
            log.warning(
                "%s: a gcloud login's access tokens have the scopes that it was made with, "
                "instead of %s.",
                self.describe(),
                " ".join(scopes),
            )
        return authority

    async def close(self) -> None:
        """Nothing is kept open; a call that still runs ends by itself."""


class ImpersonatedSource:
    """Another service account, on behalf of any source that has access tokens."""

    def __init__(self, credentials: Impersonate, source: TokenSource, asker: Asker) -> None:
        self._target = Target(
            credentials.service_account, credentials.delegates, asker.endpoints.iam
        )
        self._source = source
        self._asker = asker

    def describe(self) -> str:
        """Name the account and who acts as it."""
        return f"{self._target.email}, impersonated with {self._source.describe()}"

    async def fetch(self, audience: str) -> str:
        """Return an ID token of the account, with its email in it."""
        authority = await self._authority()
        return await self._asker.ask(
            _impersonated_id_token, authority, self._target, audience, self._asker.means
        )

    async def account(self) -> str | None:
        """Return the account's email."""
        return self._target.email

    async def authorize(self, scopes: tuple[str, ...] = ()) -> Authority:
        """Return an access token of the account."""
        authority = await self._authority()
        own = await self._asker.ask(
            _impersonate, authority, self._target, scopes or CLOUD_PLATFORM, self._asker.means
        )
        return own.counted_on(self._asker.endpoints.quota_project)

    async def close(self) -> None:
        """Nothing is kept open; whoever built the source closes it."""

    async def _authority(self) -> Authority:
        if isinstance(self._source, AccessSource):
            authority = await self._source.authorize()
            return authority.counted_on(self._asker.endpoints.quota_project)
        raise TokenSourceError(
            "it has no access tokens, which impersonation needs",
            hint="Use another source: auto, metadata, gcloud or service_account_file.",
        )


# What runs in the threads. Importing google-auth takes 0.2 s, so it is done there, and
# only by those who need it.


def _id_token(file: CredentialsFile, audience: str, means: Means) -> Minted:
    from proxy.identity import googleauth  # noqa: PLC0415 (see above)

    return googleauth.id_token(file, audience, means)


def _authorize(file: CredentialsFile, scopes: tuple[str, ...], means: Means) -> Authority:
    from proxy.identity import googleauth  # noqa: PLC0415 (see above)

    return googleauth.authorize(file, scopes, means)


def _account(file: CredentialsFile) -> str | None:
    from proxy.identity import googleauth  # noqa: PLC0415 (see above)

    return googleauth.account(file)


def _impersonated_id_token(
    authority: Authority, target: Target, audience: str, means: Means
) -> str:
    from proxy.identity import googleauth  # noqa: PLC0415 (see above)

    return googleauth.impersonated_id_token(authority, target, audience, means)


def _impersonate(
    authority: Authority, target: Target, scopes: tuple[str, ...], means: Means
) -> Authority:
    from proxy.identity import googleauth  # noqa: PLC0415 (see above)

    return googleauth.impersonate(authority, target, scopes, means)
