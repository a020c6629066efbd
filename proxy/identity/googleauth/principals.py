"""Who a credentials file stands for, and how Google is asked for that one's tokens.

Everything here blocks and runs in threads of its own.  google-auth does the protocols; of what
it cannot do, ID tokens of federated workloads, `iam` does the last step.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from google.auth import (
    aws,
    external_account_authorized_user,
    identity_pool,
    pluggable,
)
from google.oauth2 import credentials as user_credentials
from google.oauth2 import service_account

from proxy.identity.googleauth import iam
from proxy.identity.googleauth.transport import BoundedRequest
from proxy.identity.source import CLOUD_PLATFORM, Authority, TokenSourceError
from proxy.identity.target import Target
from proxy.redact import redact_foreign

Info = Mapping[str, Any]
"""The JSON object in a credentials file."""

LOGIN = "Run `gcloud auth application-default login`."

_AGAIN = {
    "service_account": "Create the key again: "
    "`gcloud iam service-accounts keys create FILE --iam-account=ACCOUNT`.",
    "authorized_user": LOGIN,
    "external_account": "Create the file again: `gcloud iam workload-identity-pools "
    "create-cred-config PROVIDER --service-account=ACCOUNT --output-file=FILE`, with the flags "
    "of the place where it is used.",
}
"""How to get a file of each type."""

_AWS = "urn:ietf:params:aws:token-type:aws4_request"


class Principal(ABC):
    """An identity that Google knows."""

    email: str | None = None
    """The service account that tokens are for, where the file tells it."""
    fixed_audience: str | None = None
    """What ``aud`` is in every ID token, where it cannot be chosen."""
    renewal: str
    """What to do if Google no longer accepts these credentials."""
    quota_project: object = None
    """On which project its calls of Google's APIs count, where one is named."""

    @abstractmethod
    def id_token(self, audience: str, request: BoundedRequest) -> str:
        """Return an ID token."""

    def authorize(self, request: BoundedRequest, scopes: tuple[str, ...]) -> Authority:
        """Return an access token of this principal."""
        return self._authorize(request, scopes).counted_on(self.quota_project)

    @abstractmethod
    def _authorize(self, request: BoundedRequest, scopes: tuple[str, ...]) -> Authority: ...


class ServiceAccountKey(Principal):
    """A service account by its private key (RFC 7523)."""

    def __init__(self, info: Info) -> None:
        _require(info, "client_email", "private_key", "token_uri")
        self.email = info["client_email"]
        self.renewal = (
            "The key may be deleted, or the account disabled. Create another key with "
            f"`gcloud iam service-accounts keys create FILE --iam-account={self.email}`, "
            f"or do without a key: credentials: {{impersonate: {self.email}}}."
        )
        self._info = info

    def id_token(self, audience: str, request: BoundedRequest) -> str:
        """Exchange a signed assertion for an ID token."""
        signing = _with_key(
            lambda: service_account.IDTokenCredentials.from_service_account_info(  # type: ignore[no-untyped-call] # google-auth is partly typed
                self._info, target_audience=audience
            )
        )
        signing.refresh(request)
        return str(signing.token)

    def _authorize(self, request: BoundedRequest, scopes: tuple[str, ...]) -> Authority:
        """Exchange a signed assertion for an access token."""
        signing = _with_key(
            lambda: service_account.Credentials.from_service_account_info(  # type: ignore[no-untyped-call] # google-auth is partly typed
                self._info, scopes=scopes
            )
        )
        signing.refresh(request)
        return _authority(signing, request, f"serviceAccount:{self.email}")


class GcloudUser(Principal):
    """A person who is logged in with gcloud; Google chooses the audience: gcloud's own client."""

    renewal = LOGIN

    def __init__(self, info: Info, token_endpoint: str) -> None:
        _require(info, "client_id", "client_secret", "refresh_token")
        self._token_endpoint = token_endpoint
        self.fixed_audience = info["client_id"]
        self._info = info

    def id_token(self, audience: str, request: BoundedRequest) -> str:  # noqa: ARG002 (cannot be chosen)
        """Refresh the login; the answer has an ID token beside the access token."""
        token = self._refreshed(request).id_token
        if not isinstance(token, str):
            raise TokenSourceError(
                "Google gave no ID token: the login lacks the scope openid", hint=LOGIN
            )
        return token

    def _authorize(self, request: BoundedRequest, scopes: tuple[str, ...]) -> Authority:
        """Refresh the login, which has the scopes that it was made with."""
        del scopes
        member = f"user:{self._info.get('account') or 'YOUR_EMAIL'}"
        return _authority(self._refreshed(request), request, member, fixed_scopes=True)

    def _refreshed(self, request: BoundedRequest) -> Any:
        login: Any = user_credentials.Credentials.from_authorized_user_info(dict(self._info))  # type: ignore[no-untyped-call] # google-auth is partly typed
        login = login.with_token_uri(self._token_endpoint)
        login.refresh(request)
        return login


class Federated(Principal):
    """A workload of another cloud or identity provider (RFC 8693)."""

    def __init__(self, info: Info) -> None:
        _require(info, "audience", "subject_token_type", "credential_source")
        audience = str(info["audience"])
        pool, _, provider = audience.partition("/providers/")
        self.renewal = (
            "Google's Security Token Service does not accept the workload's own token: check the "
            f"provider's issuer, allowed audiences and attribute condition with `gcloud iam "
            f"workload-identity-pools providers describe {provider or 'PROVIDER'} "
            f"--workload-identity-pool={pool.rpartition('/')[2]} --location=global`."
        )
        self._member = f"principalSet:{pool}/*"
        self._info = {
            key: value
            for key, value in info.items()
            # The account is impersonated by `ImpersonatedAccount`, with the federated token:
            # google-auth would use the account's own, which may not make ID tokens of itself.
            if not key.startswith("service_account_impersonation")
        }

    def id_token(self, audience: str, request: BoundedRequest) -> str:
        """Refuse: only service accounts have ID tokens."""
        del audience, request
        raise TokenSourceError(
            "it names no service account, and only those have ID tokens",
            hint="Create it again with `gcloud iam workload-identity-pools create-cred-config … "
            "--service-account=ACCOUNT`, or set credentials: {impersonate: ACCOUNT}.",
        )

    def _authorize(self, request: BoundedRequest, scopes: tuple[str, ...]) -> Authority:
        """Exchange the workload's own token at Google's Security Token Service."""
        federated = self._kind().from_info(self._info, scopes=list(scopes))
        federated.refresh(request)
        return _authority(federated, request, self._member, role="roles/iam.workloadIdentityUser")

    def _kind(self) -> Any:
        if self._info["subject_token_type"] == _AWS:
            return aws.Credentials
        source = self._info["credential_source"]
        if isinstance(source, Mapping) and "executable" in source:
            return pluggable.Credentials
        return identity_pool.Credentials


class WorkforceUser(Principal):
    """A person of a workforce pool; has access tokens only."""

    renewal = LOGIN

    def __init__(self, info: Info) -> None:
        self._info = info

    def id_token(self, audience: str, request: BoundedRequest) -> str:
        """Refuse: Google gives such logins no ID tokens."""
        del audience, request
        raise TokenSourceError(
            "a workforce login has no ID tokens",
            hint="Set credentials: {impersonate: ACCOUNT, source: gcloud}.",
        )

    def _authorize(self, request: BoundedRequest, scopes: tuple[str, ...]) -> Authority:
        """Refresh the login, which has the scopes that it was made with."""
        del scopes
        login: Any = external_account_authorized_user.Credentials.from_info(dict(self._info))  # type: ignore[no-untyped-call] # google-auth is partly typed
        login.refresh(request)
        return _authority(login, request, "principal://YOUR_PRINCIPAL", fixed_scopes=True)


class ImpersonatedAccount(Principal):
    """A service account that another principal may act as."""

    def __init__(self, source: Principal, target: Target) -> None:
        self.email = target.email
        self.renewal = source.renewal
        self._source = source
        self._target = target

    def id_token(self, audience: str, request: BoundedRequest) -> str:
        """Ask for the account's ID token on behalf of the source."""
        return iam.generate_id_token(request, self._acting(request), self._target, audience)

    def _authorize(self, request: BoundedRequest, scopes: tuple[str, ...]) -> Authority:
        """Ask for the account's access token on behalf of the source."""
        return iam.generate_access_token(request, self._acting(request), self._target, scopes)

    def _acting(self, request: BoundedRequest) -> Authority:
        # gcloud writes the project beside the account, not into the source inside.
        return self._source.authorize(request, CLOUD_PLATFORM).counted_on(self.quota_project)


def principal_of(info: Info, token_endpoint: str, quota_project: str = "") -> Principal:
    """Return who a credentials file with this content stands for; raise `TokenSourceError`.

    `token_endpoint` is where logins are refreshed and `quota_project` what calls count on,
    whatever the file says; the latter only if it is not empty.
    """
    principal = _principal(info, token_endpoint, quota_project)
    principal.quota_project = quota_project or info.get("quota_project_id")
    return principal


def _principal(info: Info, token_endpoint: str, quota_project: str) -> Principal:
    match info.get("type"):
        case "service_account":
            return ServiceAccountKey(info)
        case "authorized_user":
            return GcloudUser(info, token_endpoint)
        case "external_account":
            return _federated(info)
        case "external_account_authorized_user":
            return WorkforceUser(info)
        case "impersonated_service_account":
            return _impersonated(info, token_endpoint, quota_project)
        case kind:
            raise TokenSourceError(
                f"its type is {redact_foreign(repr(kind))}, which cannot be used here",
                hint="Use a service account key, a login of gcloud's, or a file of workload "
                "identity federation.",
            )


def _federated(info: Info) -> Principal:
    workload = Federated(info)
    url = info.get("service_account_impersonation_url")
    return workload if url is None else ImpersonatedAccount(workload, iam.target_of(str(url)))


def _impersonated(info: Info, token_endpoint: str, quota_project: str) -> Principal:
    _require(info, "service_account_impersonation_url", "source_credentials")
    delegates = tuple(map(str, info.get("delegates") or ()))
    target = iam.target_of(str(info["service_account_impersonation_url"]), delegates)
    source = info["source_credentials"]
    if not isinstance(source, Mapping):
        raise TokenSourceError("its source_credentials is not an object")
    return ImpersonatedAccount(principal_of(source, token_endpoint, quota_project), target)


def _require(info: Info, *names: str) -> None:
    missing = [name for name in names if not info.get(name)]
    if missing:
        raise TokenSourceError(
            f"it lacks {' and '.join(missing)}",
            hint=_AGAIN.get(str(info.get("type")), "Create the credentials file again."),
        )


def _with_key(build: Callable[[], Any]) -> Any:
    try:
        return build()
    except ValueError:  # The cause could quote the key.
        raise TokenSourceError(
            "its private_key is not a PEM key",
            hint="Line breaks of the key are written as \\n in the file; create it again.",
        ) from None


def _authority(refreshed: Any, request: BoundedRequest, member: str, **more: Any) -> Authority:
    """Return the access token that google-auth's credentials hold after a refresh by `request`."""
    # Their expiry is naive, in UTC; None where the answer named none.
    expiry = refreshed.expiry
    left = None if expiry is None else expiry.replace(tzinfo=UTC) - datetime.now(UTC)
    return Authority(
        str(refreshed.token),
        expires_in=None if left is None else left.total_seconds(),
        token_type=_token_type(request),
        member=member,
        **more,
    )


def _token_type(request: BoundedRequest) -> str:
    """Return the ``token_type`` of the last answer, which google-auth does not look at."""
    answer = json.loads(request.last.data) if request.last is not None else {}
    return str(answer.get("token_type") or "")
