"""Makes the tokens that the metadata server hands out, and keeps them as Cloud Run's does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from proxy.emulator.access import AccessTokens, Grant
from proxy.emulator.claims import Claims, Instance, ServiceAccount, id_token_claims
from proxy.emulator.keys import Keys

# https://cloud.google.com/compute/docs/access/authenticate-workloads: "The metadata server
# caches access tokens until they have 5 minutes of remaining time before they expire."
ACCESS_TOKEN_REMINT = 300.0

# Users report that Cloud Run's metadata server gives the same ID token for about 3500 s of
# its 3600 s; no page of Google's states it.
ID_TOKEN_REMINT = 100.0

LIFETIME = 3600.0


class Mint:
    """Makes tokens and returns the same one until it nears its expiry.

    `lifetime` is in seconds; an ID token is replaced once no more than `remint_below`
    seconds are left to it (`math.inf`: a token of its own for each request, as Compute
    Engine does).  Google's tokens carry no ``jti`` and RS256 is deterministic, so two
    tokens minted in one second of the clock are the same bytes.
    """

    def __init__(
        self,
        keys: Keys,
        clock: Callable[[], float],
        lifetime: float,
        remint_below: float,
        access: AccessTokens | None = None,
    ) -> None:
        """`access` keeps what access tokens stand for, by default for this one alone."""
        self.access = access or AccessTokens()
        self.lifetime = lifetime
        self.remint_below = remint_below
        self.minted: Counter[str] = Counter()
        self._keys = keys
        self._clock = clock
        self._id_tokens: dict[tuple[str, str, bool], tuple[str, float]] = {}
        self._access_tokens: dict[tuple[str, tuple[str, ...]], str] = {}

    def id_token(self, account: ServiceAccount, audience: str, full: Instance | None) -> str:
        """Return an ID token for `audience`; `full` adds what ``format=full`` adds."""
        key = account.email, audience, full is not None
        kept = self._id_tokens.get(key)
        if kept is not None and kept[1] - self._clock() > self.remint_below:
            return kept[0]
        now = self._clock()
        claims = id_token_claims(account, audience, now=now, lifetime=self.lifetime, instance=full)
        token = self._keys.sign(claims)
        self.minted[audience] += 1
        self._id_tokens[key] = token, claims["exp"]
        return token

    def odd_id_token(
        self,
        account: ServiceAccount,
        audience: str,
        full: Instance | None,
        *,
        lifetime: float | None,
        changes: Claims,
    ) -> str:
        """Return a signed token with `lifetime` seconds to go or other claims; it is not kept."""
        remaining = self.lifetime if lifetime is None else lifetime
        # Issued a regular lifetime before its expiry, so that only the expiry is odd.
        earlier = max(0.0, self.lifetime - remaining)
        claims = id_token_claims(
            account,
            audience,
            now=self._clock() - earlier,
            lifetime=earlier + remaining,
            instance=full,
        )
        claims.update(changes)
        return self._keys.sign({name: value for name, value in claims.items() if value is not None})

    def access_token(
        self, account: ServiceAccount, scopes: tuple[str, ...] = ()
    ) -> dict[str, str | int]:
        """Return the OAuth access token as the metadata server's JSON object.

        `scopes` are those that were asked for, none for all that the account has.
        """
        wanted = account.email, scopes or account.scopes
        kept = self._access_tokens.get(wanted)
        grant = self.access.of(kept) if kept is not None else None
        if kept is None or grant is None or grant.expires_at - self._clock() <= ACCESS_TOKEN_REMINT:
            grant = Grant(*wanted, self._clock() + self.lifetime)
            kept = self._access_tokens[wanted] = self.access.issue(grant)
        remaining = int(grant.expires_at - self._clock())
        return {"access_token": kept, "expires_in": remaining, "token_type": "Bearer"}

    def forget(self) -> None:
        """Drop every kept token, so that the next request mints."""
        self._id_tokens.clear()
        self._access_tokens.clear()
