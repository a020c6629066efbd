"""Where credentials other than the metadata server's get tokens, on a free port of the loopback.

Google's OAuth 2.0 token endpoint, its Security Token Service and the IAM Credentials API check what
the real ones check: signatures of assertions, refresh tokens, subject tokens, and who may act as
whom.  What nobody has granted is refused in Google's words::

    access = AccessTokens()
    async with MetadataServer(access=access) as metadata, TokenServices(access=access) as google:
        google.grant(f"serviceAccount:{metadata.account.email}", "orders@p.iam.gserviceaccount.com")
        # Start what you test with {**metadata.environ, **google.environ()} in its environment,
        # or with one of the credentials files that `google` writes.

What the emulation leaves out: AWS' own signature in a subject token (its shape is looked at), and
conditions of policies.
"""

from __future__ import annotations

import base64
import binascii
import json
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote

from aiohttp import web
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from proxy.emulator.access import ALL_OF_CLOUD, AccessTokens, Grant
from proxy.emulator.claims import ServiceAccount, id_token_claims
from proxy.emulator.keys import Keys
from proxy.emulator.minting import LIFETIME
from proxy.emulator.records import Records
from proxy.emulator.serving import LOOPBACK, Serving, Startable
from proxy.frozen import frozen

KEY_OWNER = "key@project.iam.gserviceaccount.com"
CLIENT_ID = "764086051850-emulated.apps.googleusercontent.com"
POOL = "//iam.googleapis.com/projects/42/locations/global/workloadIdentityPools/pool"
PROVIDER = f"{POOL}/providers/provider"
MEMBER = f"principalSet:{POOL}/*"
"""The federated workloads of `PROVIDER`."""
AWS = "urn:ietf:params:aws:token-type:aws4_request"
WORKFORCE_MEMBER = "principal://YOUR_PRINCIPAL"

TOKEN_ENDPOINT = "https://oauth2.googleapis.com/token"  # noqa: S105 (an address)
"""What an assertion is addressed to, wherever the endpoint is (RFC 7523, 3)."""

SKEW = 600.0
"""Seconds by which an assertion may be older or newer than the clock."""

_IAM_SCOPES = frozenset({ALL_OF_CLOUD, "https://www.googleapis.com/auth/iam"})
_ACCOUNTS = "projects/-/serviceAccounts/"
_RIGHTS = {
    "generateIdToken": "getOpenIdToken",
    "generateAccessToken": "getAccessToken",
    "signBlob": "signBlob",
}
"""Methods of the IAM Credentials API, and what a caller must be allowed for each."""

Body = Mapping[str, Any]


@cache
def private_key() -> rsa.RSAPrivateKey:
    """Return the key that every service account key file of this process holds."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def pem(key: rsa.RSAPrivateKey) -> str:
    """Return the key as a key file has it."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


@frozen
class TokenRequest:
    """One request as it arrived."""

    path: str
    headers: Mapping[str, str] = field(repr=False)
    body: Body = field(repr=False)


class _Refused(Exception):
    """What is answered instead of a token."""

    def __init__(self, status: int, body: Body) -> None:
        super().__init__()
        self.status = status
        self.body = body


def _oauth(error: str, description: str, status: int = 400) -> _Refused:
    """Return an error of the token endpoints (RFC 6749, 5.2)."""
    return _Refused(status, {"error": error, "error_description": description})


def _api(status: int, message: str) -> _Refused:
    """Return an error of an API; see https://cloud.google.com/apis/design/errors."""
    word = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED"}
    named = word.get(status, HTTPStatus(status).name)
    return _Refused(status, {"error": {"code": status, "message": message, "status": named}})


class TokenServices(Startable):
    """All three services on one port; their ID tokens verify against `keys`.

    `access` keeps the access tokens: share one with a `MetadataServer` whose account shall act as
    others, and with an `ApiService` that shall take them.  `clock` answers Unix seconds.  What is
    public may be changed while it runs.
    """

    def __init__(
        self,
        keys: Keys | None = None,
        *,
        access: AccessTokens | None = None,
        clock: Callable[[], float] = time.time,  # noqa: TID251 (users run the emulator alone)
        lifetime: float = LIFETIME,
    ) -> None:
        self.keys = keys or Keys.shared()
        self.access = access or AccessTokens()
        self.requests: Records[TokenRequest] = Records()
        self.grants: set[tuple[str, str]] = set()
        """(member, account): who may act as whom."""
        self.accounts = {KEY_OWNER}
        """Service accounts that exist."""
        self.refresh_tokens = {"1//refresh": "dev@example.com"}
        """Whose login a refresh token is."""
        self.scopes = {"openid", ALL_OF_CLOUD}
        """Of the logins; without openid they bring no ID token."""
        self.subject_token = "the workload's own token"  # noqa: S105 (nobody's)
        """What `PROVIDER` takes for its workloads' proof."""
        self.lifetime = lifetime
        self.ahead = 0.0
        """Seconds by which IAM's clock is ahead of `clock`."""
        self.url = ""
        """Its origin, once it has been started."""
        self._clock = clock
        self._answers: deque[web.Response] = deque()
        self._serving = Serving(self._serve)

    # --- what tests prepare

    def answer(
        self, status: int, body: Any, content_type: str = "application/json", **headers: str
    ) -> None:
        """Answer the next request like this instead; `body` is sent as JSON unless it is text."""
        text = body if isinstance(body, str) else json.dumps(body)
        self._answers.append(
            web.Response(status=status, text=text, content_type=content_type, headers=headers)
        )

    def grant(self, member: str, account: str) -> None:
        """Let `member`, such as ``serviceAccount:EMAIL``, act as `account`, which exists then."""
        self.accounts.add(account)
        self.grants.add((member, account))

    def environ(self, **more: str) -> dict[str, str]:
        """Return the environment, and `more`, that leads here what credentials do not name."""
        return {
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_IAMCREDENTIALS": f"{self.url}/",
            "CLOUDSDK_AUTH_TOKEN_HOST": f"{self.url}/token",
            **more,
        }

    def key_file(self, email: str = KEY_OWNER) -> dict[str, Any]:
        """Return the content of a service account's key file."""
        return {
            "type": "service_account",
            "project_id": "project",
            "private_key_id": "1",
            "private_key": pem(private_key()),
            "client_email": email,
            "client_id": "1",
            "token_uri": f"{self.url}/token",
        }

    def login_file(self) -> dict[str, Any]:
        """Return what `gcloud auth application-default login` writes."""
        return {
            "type": "authorized_user",
            "client_id": CLIENT_ID,
            "client_secret": "emulated-client-secret",
            "refresh_token": "1//refresh",
            "quota_project_id": "quota",
            "account": "dev@example.com",
        }

    def federated_file(self, subject: Path, account: str = "") -> dict[str, Any]:
        """Return a workload identity federation file; the workload's own token is in `subject`."""
        info: dict[str, Any] = {
            "type": "external_account",
            "audience": PROVIDER,
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": f"{self.url}/v1/token",
            "credential_source": {"file": str(subject)},
        }
        if account:
            info["service_account_impersonation_url"] = self.impersonation_url(account)
        return info

    def workforce_file(self) -> dict[str, Any]:
        """Return the login of a person of a workforce pool."""
        return {
            "type": "external_account_authorized_user",
            "audience": "//iam.googleapis.com/locations/global/workforcePools/p/providers/q",
            "client_id": "workforce",
            "client_secret": "secret",
            "refresh_token": "1//workforce",
            "token_url": f"{self.url}/v1/oauthtoken",
            "token_info_url": f"{self.url}/v1/introspect",
        }

    def impersonated_file(
        self, source: Mapping[str, Any], account: str, *delegates: str
    ) -> dict[str, Any]:
        """Return what `gcloud auth application-default login --impersonate-…` writes."""
        return {
            "type": "impersonated_service_account",
            "service_account_impersonation_url": self.impersonation_url(account),
            "source_credentials": dict(source),
            "delegates": list(delegates),
        }

    def impersonation_url(self, account: str) -> str:
        """Return where access tokens of `account` are made."""
        return f"{self.url}/v1/{_ACCOUNTS}{account}:generateAccessToken"

    # --- serving

    async def start(self) -> Self:
        """Open the port."""
        await self._serving.start()
        self.url = f"http://{LOOPBACK}:{self._serving.port}"
        return self

    async def stop(self) -> None:
        """Close the port; raise what a handler raised."""
        await self._serving.stop()

    async def _serve(self, request: web.Request) -> web.Response:
        if request.content_type == "application/json":
            body: Body = await request.json()
        else:
            body = dict(await request.post())
        self.requests.add(TokenRequest(request.path, request.headers.copy(), body))
        if self._answers:
            return self._answers.popleft()
        try:
            return self._respond(request, body)
        except _Refused as refused:
            return web.json_response(refused.body, status=refused.status)
        except KeyError as missing:
            return web.json_response(
                {"error": "invalid_request", "error_description": f"Missing parameter: {missing}"},
                status=400,
            )

    def _respond(self, request: web.Request, body: Body) -> web.Response:
        if request.path.startswith(f"/v1/{_ACCOUNTS}"):
            return self._iam(request, body)
        respond: Callable[[Body], web.Response] | None = {
            "/token": self._token,
            "/v1/token": self._exchange,
            "/v1/oauthtoken": self._refresh_workforce,
            "/oauth2/v1/certs": lambda _: web.json_response(self.keys.x509_certificates()),
        }.get(request.path)
        return web.Response(status=404) if respond is None else respond(body)

    # --- the token endpoint: https://developers.google.com/identity/protocols/oauth2

    def _token(self, body: Body) -> web.Response:
        match body["grant_type"]:
            case "refresh_token":
                return self._refresh(body)
            case "urn:ietf:params:oauth:grant-type:jwt-bearer":
                return self._assert(body["assertion"])
            case other:
                raise _oauth("unsupported_grant_type", f"Invalid grant_type: {other}")

    def _assert(self, assertion: str) -> web.Response:
        claims = _verified(assertion)
        if claims["aud"] != TOKEN_ENDPOINT:
            raise _oauth("invalid_grant", "Invalid JWT: Failed audience check.")
        if abs(claims["iat"] - self._clock()) > SKEW:
            raise _oauth(
                "invalid_grant",
                "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable "
                "timeframe. Check your iat and exp values in the JWT claim.",
            )
        email = claims["iss"]
        if email not in self.accounts:
            raise _oauth("invalid_grant", "Invalid grant: account not found")
        if "target_audience" in claims:
            return web.json_response({"id_token": self.id_token(email, claims["target_audience"])})
        return self._bearer(f"serviceAccount:{email}", claims["scope"].split())

    def _refresh(self, body: Body) -> web.Response:
        if body["client_id"] != CLIENT_ID:
            raise _oauth("invalid_client", "The OAuth client was not found.", 401)
        email = self.refresh_tokens.get(body["refresh_token"])
        if email is None:
            raise _oauth("invalid_grant", "Token has been expired or revoked.")
        if "scope" in body and not set(body["scope"].split()) <= self.scopes:
            raise _oauth("invalid_scope", "Some requested scopes were invalid.")
        more = {"id_token": self.id_token(email, CLIENT_ID)} if "openid" in self.scopes else {}
        return self._bearer(f"user:{email}", sorted(self.scopes), more)

    # --- the Security Token Service: https://cloud.google.com/iam/docs/reference/sts/rest

    def _exchange(self, body: Body) -> web.Response:
        if body["grant_type"] != "urn:ietf:params:oauth:grant-type:token-exchange":
            raise _oauth("unsupported_grant_type", f"Invalid grant_type: {body['grant_type']}")
        if body["subject_token_type"] == AWS:
            proven = _is_signed_for_aws(body["subject_token"])
        else:
            proven = body["subject_token"] == self.subject_token
        if body["audience"] != PROVIDER or not proven:
            raise _oauth(
                "invalid_grant", "The audience in ID Token does not match the expected audience."
            )
        return self._bearer(MEMBER, body["scope"].split())

    def _refresh_workforce(self, body: Body) -> web.Response:
        if body != {"grant_type": "refresh_token", "refresh_token": "1//workforce"}:
            raise _oauth("invalid_grant", "Token has been expired or revoked.")
        return self._bearer(WORKFORCE_MEMBER, [ALL_OF_CLOUD])

    # --- the IAM Credentials API: https://cloud.google.com/iam/docs/reference/credentials/rest

    def _iam(self, request: web.Request, body: Body) -> web.Response:
        account, _, method = unquote(request.path.rpartition("/")[2]).partition(":")
        if method not in _RIGHTS:
            raise _api(404, "Method not found.")
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        asking = self.access.of(bearer)
        if asking is None or asking.expires_at <= self._clock():
            raise _api(401, "Request had invalid authentication credentials.")
        # Whoever asks needs such a scope on top of the grant.
        if not _IAM_SCOPES & set(asking.scopes):
            raise _api(403, "Request had insufficient authentication scopes.")
        if account not in self.accounts:
            raise _api(404, f"Not found; Gaia id not found for email {account}")
        self._let_act(asking.who, [*body.get("delegates", ()), _ACCOUNTS + account], method)
        match method:
            case "generateIdToken":
                with_email = body.get("includeEmail") is True
                token = self.id_token(account, body["audience"], with_email=with_email)
                return web.json_response({"token": token})
            case "signBlob":
                return web.json_response(_signed(body["payload"]))
            case _:
                return self._impersonated(account, body["scope"])

    def _let_act(self, member: str, chain: list[str], method: str) -> None:
        """Refuse unless `member` may act as the first of `chain`, that as the next, and so on."""
        for name in chain:
            if not name.startswith(_ACCOUNTS):
                raise _api(400, f"Invalid value for delegates: {name}")
            link = name.removeprefix(_ACCOUNTS)
            if (member, link) not in self.grants:
                right = _RIGHTS[method]
                raise _api(
                    403,
                    f"Permission 'iam.serviceAccounts.{right}' denied on resource "
                    "(or it may not exist).",
                )
            member = f"serviceAccount:{link}"

    def _impersonated(self, account: str, scopes: list[str]) -> web.Response:
        now = datetime.fromtimestamp(self._clock() + self.ahead, UTC)
        until = now + timedelta(seconds=self.lifetime)
        answer = {
            "accessToken": self._issue(f"serviceAccount:{account}", scopes),
            "expireTime": until.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        return web.json_response(answer, headers={"Date": format_datetime(now, usegmt=True)})

    # --- tokens

    def id_token(self, email: str, audience: str, *, with_email: bool = True) -> str:
        """Return an ID token of `email` that verifies."""
        claims = id_token_claims(
            ServiceAccount(email=email), audience, now=self._clock(), lifetime=self.lifetime
        )
        if not with_email:
            del claims["email"], claims["email_verified"]
        return self.keys.sign(claims)

    def _bearer(self, member: str, scopes: list[str], more: Body | None = None) -> web.Response:
        answer = {"access_token": self._issue(member, scopes), "token_type": "Bearer"}
        expires_in = max(0, int(self.lifetime) - 1)
        return web.json_response({**answer, "expires_in": expires_in, **(more or {})})

    def _issue(self, member: str, scopes: list[str]) -> str:
        kind, _, email = member.partition(":")
        named = email if kind in {"serviceAccount", "user"} else ""
        until = self._clock() + self.lifetime
        return self.access.issue(Grant(named, tuple(scopes), until, member))


def _verified(assertion: str) -> Body:
    """Return the claims of an assertion that a key file's key has signed (RFC 7523)."""
    signed, _, signature = assertion.rpartition(".")
    try:
        private_key().public_key().verify(
            _decoded(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256()
        )
        claims: Body = json.loads(_decoded(signed.partition(".")[2]))
    except (InvalidSignature, ValueError):
        raise _oauth("invalid_grant", "Invalid JWT Signature.") from None
    return claims


def _is_signed_for_aws(subject: str) -> bool:
    """Tell whether a subject token has the form of a request to AWS that proves who signed it."""
    try:
        headers = {each["key"]: each["value"] for each in json.loads(unquote(subject))["headers"]}
    except (ValueError, TypeError, KeyError):
        return False
    is_meant = headers.get("x-goog-cloud-target-resource") == PROVIDER
    return is_meant and "Credential=" in headers.get("Authorization", "")


def _signed(payload: str) -> dict[str, str]:
    """Sign what `payload` holds in base64, as the account's key."""
    try:
        data = base64.b64decode(payload, validate=True)
    except binascii.Error:
        raise _api(400, "Invalid value at 'payload' (TYPE_BYTES)") from None
    blob = private_key().sign(data, padding.PKCS1v15(), hashes.SHA256())
    return {"keyId": "1", "signedBlob": base64.b64encode(blob).decode()}


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
