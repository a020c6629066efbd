"""Google's token endpoint, Security Token Service and IAM Credentials API, on the loopback.

They check what the real ones check: signatures of assertions, refresh tokens, subject tokens,
who may act as whom; and their ID tokens verify against `FakeGoogle.keys`.  What a test did
not announce is refused in Google's words.  A handler that fails fails the test.
"""

from __future__ import annotations

import base64
import itertools
import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote

from aiohttp import web
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from proxy.clock import Clocks
from proxy.emulator.claims import ServiceAccount, id_token_claims
from proxy.emulator.keys import Keys

CLIENT_ID = "764086051850-emulated.apps.googleusercontent.com"
POOL = "//iam.googleapis.com/projects/42/locations/global/workloadIdentityPools/pool"
PROVIDER = f"{POOL}/providers/provider"
AWS = "urn:ietf:params:aws:token-type:aws4_request"
WORKFORCE_MEMBER = "principal://YOUR_PRINCIPAL"
MEMBER = f"principalSet:{POOL}/*"
"""The federated workloads of `PROVIDER`."""

Body = Mapping[str, Any]


@cache
def private_key() -> rsa.RSAPrivateKey:
    """Return the key that every service account key file of the tests holds."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def pem(key: rsa.RSAPrivateKey) -> str:
    """Return the key as a key file has it."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


@dataclass
class Request:
    """One request as it arrived."""

    path: str
    headers: Mapping[str, str]
    body: Body = field(repr=False)


class FakeGoogle:
    """All three services on one port."""

    def __init__(self) -> None:
        self.keys = Keys.shared()
        self.requests: list[Request] = []
        self.access_tokens: dict[str, str] = {}
        """Who presents an access token, as a member of IAM policies."""
        self.scopes_of: dict[str, list[str]] = {}
        """What an access token is for."""
        self.grants: set[tuple[str, str]] = set()
        """(member, account): who may act as whom."""
        self.accounts = {"key@project.iam.gserviceaccount.com"}
        """Service accounts that exist."""
        self.refresh_tokens = {"1//refresh": "dev@example.com"}
        self.subject_token = "the workload's own token"
        self.scopes = {"openid", "https://www.googleapis.com/auth/cloud-platform"}
        """Of the gcloud login; without openid there is no ID token."""
        self.lifetime = 3600.0
        self.ahead = 0.0
        """Seconds by which IAM's clock is ahead of this machine's."""
        self._answers: deque[web.Response] = deque()
        self._serial = itertools.count()
        self._failures: list[Exception] = []
        self._runner: web.AppRunner | None = None
        self.url = ""

    # --- what tests prepare

    def answer(
        self, status: int, body: Any, content_type: str = "application/json", **headers: str
    ) -> None:
        """Answer the next request like this instead."""
        text = body if isinstance(body, str) else json.dumps(body)
        self._answers.append(
            web.Response(status=status, text=text, content_type=content_type, headers=headers)
        )

    def grant(self, member: str, account: str) -> None:
        """Let `member` act as `account`, which exists from now on."""
        self.accounts.add(account)
        self.grants.add((member, account))

    def key_file(self, email: str = "key@project.iam.gserviceaccount.com") -> dict[str, Any]:
        """Return the content of a key file."""
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
            "client_secret": "d-FL95Q19q7MQmFpd7hHD0Ty",
            "refresh_token": "1//refresh",
            "quota_project_id": "quota",
            "account": "dev@example.com",
        }

    def environ(self, **more: str) -> dict[str, str]:
        """Return the environment that leads here what files do not name."""
        return {
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_IAMCREDENTIALS": f"{self.url}/",
            "CLOUDSDK_AUTH_TOKEN_HOST": f"{self.url}/token",
            **more,
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
        return f"{self.url}/v1/projects/-/serviceAccounts/{account}:generateAccessToken"

    # --- serving

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()
        if self._failures:
            raise ExceptionGroup("the fake Google failed", self._failures)

    async def _serve(self, request: web.Request) -> web.Response:
        try:
            return await self._respond(request)
        except Exception as error:
            self._failures.append(error)
            raise

    async def _respond(self, request: web.Request) -> web.Response:
        if request.content_type == "application/json":
            body: Body = await request.json()
        else:
            body = dict(await request.post())
        self.requests.append(Request(request.path, request.headers.copy(), body))
        if self._answers:
            return self._answers.popleft()
        if request.path.startswith("/v1/projects/-/serviceAccounts/"):
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
        if body["grant_type"] == "refresh_token":
            return self._refresh(body)
        assert body["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
        signed, _, signature = body["assertion"].rpartition(".")
        try:
            private_key().public_key().verify(
                _bytes(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256()
            )
        except InvalidSignature:
            return _invalid_grant("Invalid JWT Signature.")
        claims = json.loads(_bytes(signed.partition(".")[2]))
        assert claims["aud"] == "https://oauth2.googleapis.com/token"
        if abs(claims["iat"] - Clocks().wall()) > 600:
            return _invalid_grant(
                "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable "
                "timeframe. Check your iat and exp values in the JWT claim."
            )
        email = claims["iss"]
        if email not in self.accounts:
            return _invalid_grant("Invalid grant: account not found")
        if "target_audience" in claims:
            return web.json_response({"id_token": self.id_token(email, claims["target_audience"])})
        return self._access(f"serviceAccount:{email}", claims["scope"].split())

    def _refresh(self, body: Body) -> web.Response:
        if body["client_id"] != CLIENT_ID:
            return web.json_response(
                {"error": "invalid_client", "error_description": "The OAuth client was not found."},
                status=401,
            )
        email = self.refresh_tokens.get(body["refresh_token"])
        if email is None:
            return _invalid_grant("Token has been expired or revoked.")
        more = {"id_token": self.id_token(email, CLIENT_ID)} if "openid" in self.scopes else {}
        assert "scope" not in body
        return self._access(f"user:{email}", [*self.scopes], more)

    # --- the Security Token Service: https://cloud.google.com/iam/docs/reference/sts/rest

    def _exchange(self, body: Body) -> web.Response:
        assert body["grant_type"] == "urn:ietf:params:oauth:grant-type:token-exchange"
        subject = body["subject_token"]
        if body["subject_token_type"] == AWS:
            # A request to AWS that proves who signed it: only its shape is looked at.
            signed = json.loads(unquote(subject))
            headers = {header["key"]: header["value"] for header in signed["headers"]}
            assert headers["x-goog-cloud-target-resource"] == PROVIDER
            assert "Credential=AKIDEMULATED/" in headers["Authorization"]
            subject = self.subject_token
        if body["audience"] != PROVIDER or subject != self.subject_token:
            return _invalid_grant("The audience in ID Token does not match the expected audience.")
        return self._access(MEMBER, body["scope"].split())

    def _refresh_workforce(self, body: Body) -> web.Response:
        assert body == {"grant_type": "refresh_token", "refresh_token": "1//workforce"}
        return self._access(WORKFORCE_MEMBER, ["a login's own"])

    # --- the IAM Credentials API

    def _iam(self, request: web.Request, body: Body) -> web.Response:
        account, _, method = unquote(request.path.rpartition("/")[2]).partition(":")
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        member = self.access_tokens.get(token)
        if member is None:
            return _error(401, "Request had invalid authentication credentials.")
        chain = [name.removeprefix("projects/-/serviceAccounts/") for name in body["delegates"]]
        assert all(name.startswith("projects/-/serviceAccounts/") for name in body["delegates"])
        if account not in self.accounts:
            return _error(404, f"Not found; Gaia id not found for email {account}")
        for link in [*chain, account]:
            if (member, link) not in self.grants:
                right = "getOpenIdToken" if method == "generateIdToken" else "getAccessToken"
                return _error(
                    403,
                    f"Permission 'iam.serviceAccounts.{right}' denied on resource "
                    "(or it may not exist).",
                )
            member = f"serviceAccount:{link}"
        # Whoever asks needs cloud-platform, or the scope of IAM, on top of the grant.
        assert any(scope.endswith(("cloud-platform", "own")) for scope in self.scopes_of[token])
        if method == "generateIdToken":
            assert body["includeEmail"] is True
            return web.json_response({"token": self.id_token(account, body["audience"])})
        token = self._new_access_token(f"serviceAccount:{account}", body["scope"])
        now = datetime.fromtimestamp(Clocks().wall() + self.ahead, UTC)
        until = now + timedelta(seconds=self.lifetime)
        answer = {"accessToken": token, "expireTime": until.strftime("%Y-%m-%dT%H:%M:%SZ")}
        return web.json_response(answer, headers={"Date": format_datetime(now, usegmt=True)})

    # --- tokens

    def id_token(self, email: str, audience: str) -> str:
        """Return an ID token that verifies."""
        claims = id_token_claims(
            ServiceAccount(email=email), audience, now=Clocks().wall(), lifetime=self.lifetime
        )
        return self.keys.sign(claims)

    def _access(self, member: str, scopes: list[str], more: Body | None = None) -> web.Response:
        token = self._new_access_token(member, scopes)
        answer = {"access_token": token, "expires_in": 3599, "token_type": "Bearer"}
        return web.json_response({**answer, **(more or {})})

    def _new_access_token(self, member: str, scopes: list[str]) -> str:
        token = f"ya29.emulated-access-token-{next(self._serial)}"
        self.access_tokens[token] = member
        self.scopes_of[token] = scopes
        return token


def _bytes(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _invalid_grant(description: str) -> web.Response:
    return web.json_response(
        {"error": "invalid_grant", "error_description": description}, status=400
    )


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"error": {"code": status, "message": message}}, status=status)
