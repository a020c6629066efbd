"""The access tokens of the emulated Google: opaque, so whoever checks one asks who issued it."""

from __future__ import annotations

import secrets

from proxy.frozen import frozen

ALL_OF_CLOUD = "https://www.googleapis.com/auth/cloud-platform"
"""The scope that every API of Google Cloud's takes."""


@frozen
class Grant:
    """What an access token stands for."""

    email: str
    scopes: tuple[str, ...]
    expires_at: float
    """Unix seconds."""
    member: str = ""
    """Whose it is, in the words of policies; by default the service account's."""

    @property
    def who(self) -> str:
        """Return the member of policies that presents it."""
        return self.member or f"serviceAccount:{self.email}"


class AccessTokens:
    """Every access token that was issued; those that issue and those that check share one."""

    def __init__(self) -> None:
        self._issued: dict[str, Grant] = {}

    def issue(self, grant: Grant) -> str:
        """Return a new token, which says nothing of itself."""
        token = f"ya29.{secrets.token_urlsafe(96)}"
        self._issued[token] = grant
        return token

    def of(self, token: str) -> Grant | None:
        """Return what `token` stands for, None if nobody issued it, or it was revoked."""
        return self._issued.get(token)

    def revoke(self) -> None:
        """Make every token worthless that has been issued so far."""
        self._issued.clear()
