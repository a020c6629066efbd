"""What a token source is: something that fetches an ID token for an audience, or an access token.

A source knows protocols and files; it keeps no tokens, never decides when to fetch and is
never asked twice at once for one audience.  Those are the tasks of `cache`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field, replace
from typing import Protocol, runtime_checkable

from proxy.frozen import frozen

ANSWER_WITHIN = 15.0
"""Seconds that a source may take for one token.  Longer than the 10 s that callers wait by
default, so that a slow source still serves those who come later."""

QUOTA_VARIABLE = "GOOGLE_CLOUD_QUOTA_PROJECT"
"""Names the project on which calls of Google's APIs count, before any credentials file does."""

# https://cloud.google.com/resource-manager/docs/creating-managing-projects: an ID, which an
# organization's domain may precede, or a number.
_PROJECT = re.compile(r"[a-z0-9.:-]{1,100}")

QUOTA_FIELD = "X-Goog-User-Project"
"""Names that project on a request (https://cloud.google.com/apis/docs/system-parameters)."""

CLOUD_PLATFORM = ("https://www.googleapis.com/auth/cloud-platform",)
"""The scope that leaves to IAM what an access token may be used for, as Google advises."""


class TokenSourceError(Exception):
    """No token could be fetched, or what came is none.

    `detail` is one sentence that says what happened, `hint` says what to type or change.
    `retryable`: whether the cause may be gone in a moment, so that waiting for the next
    attempt makes sense.  Neither text ever carries a token.
    """

    def __init__(
        self, detail: str, *, hint: str | None = None, retryable: bool = False, slow: bool = False
    ) -> None:
        """`slow`: nothing was refused, but the answer did not come in time."""
        super().__init__(detail)
        self.detail = detail
        self.hint = hint
        self.retryable = retryable or slow
        self.slow = slow


class TokenSource(Protocol):
    """Where ID tokens come from; one for each credentials of the configuration."""

    def describe(self) -> str:
        """Return where tokens come from in a few words, for logs, status and doctor."""
        ...

    async def fetch(self, audience: str) -> str:
        """Return an ID token for `audience`, as it came; raise `TokenSourceError`."""
        ...

    async def account(self) -> str | None:
        """Return the email of the account that tokens are for, where it is known."""
        ...

    async def close(self) -> None:
        """Give up connections and threads; the source is not used afterwards."""
        ...


@runtime_checkable
class FixedAudience(Protocol):
    """A source that cannot choose the audience, such as the user logged in with gcloud."""

    @property
    def fixed_audience(self) -> str | None:
        """What ``aud`` is in every token that it fetches; None where it follows what is asked."""
        ...


@runtime_checkable
class Watched(Protocol):
    """A source that can tell cheaply that a better token is waiting, such as a file."""

    def changed(self) -> bool:
        """Return whether there is something that `fetch` has not read yet."""
        ...


@frozen
class Authority:
    """The right to call Google's APIs: an access token, and whose it is."""

    access_token: str = field(repr=False)
    """As it came: whoever sends it elsewhere than to IAM judges it (`access_token`)."""
    expires_in: float | None = None
    """Seconds from now, None where nothing usable was said."""
    token_type: str = "Bearer"  # noqa: S105 (RFC 6749, 7.1)
    """What the issuer calls it; empty where it did not say."""
    member: str = "MEMBER"
    """Who that is in the words of an IAM policy, such as ``serviceAccount:a@b``."""
    role: str = ""
    """What such a member is granted on an account to act as it, if not the usual role."""
    fixed_scopes: bool = False
    """Whether it has the scopes of a login, whatever was asked for."""
    quota_project: str = ""
    """The project on which its calls count, empty for the one that it belongs to."""

    @property
    def headers(self) -> Mapping[str, str]:
        """What authorises a request."""
        bearer = {"Authorization": f"Bearer {self.access_token}"}
        return {**bearer, QUOTA_FIELD: self.quota_project} if self.quota_project else bearer

    @property
    def email(self) -> str | None:
        """The account in `member`, None where that names none."""
        name = self.member.partition(":")[2]
        return name if "@" in name and "/" not in name else None

    def counted_on(self, project: object) -> Authority:
        """Return the same right, whose calls Google's APIs count and bill on `project`.

        https://cloud.google.com/docs/quotas/quota-project: some APIs refuse a person's calls
        that name none.  Nothing changes where `project` is empty or None.
        """
        if not project:
            return self
        if not _PROJECT.fullmatch(str(project)):
            raise TokenSourceError(
                "the quota project is not a project ID",
                hint=f"Correct quota_project_id in the credentials file, or {QUOTA_VARIABLE}.",
            )
        return replace(self, quota_project=str(project))


@runtime_checkable
class AccessSource(Protocol):
    """A source that can also authorise requests to Google's APIs."""

    async def authorize(self, scopes: tuple[str, ...] = ()) -> Authority:
        """Return an access token with these scopes; raise `TokenSourceError`.

        Without any, one with which IAM can be asked.
        """
        ...


def no_access_tokens() -> TokenSourceError:
    """Return the error of a source that is none of those."""
    return TokenSourceError(
        "it has no access tokens",
        hint="Use other credentials: auto, metadata, gcloud, service_account_file or impersonate.",
    )
