"""Whom to impersonate, and where Google is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from proxy.clock import Clock
from proxy.config.proxies import Egress
from proxy.frozen import frozen
from proxy.identity.source import QUOTA_VARIABLE

IAM_ENDPOINT = "https://iamcredentials.googleapis.com"
TOKEN_ENDPOINT = "https://oauth2.googleapis.com/token"  # noqa: S105 (an address)


@frozen
class Endpoints:
    """Where Google's services are; files of keys and federated workloads name their own."""

    iam: str = IAM_ENDPOINT
    """Scheme and host of the IAM Credentials API, for configured impersonation."""
    token: str = TOKEN_ENDPOINT
    """Where gcloud logins are refreshed."""
    quota_project: str = ""
    """The project on which calls count; empty for the one in the credentials file, if any."""

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Self:
        """Return the endpoints, which are overridden as gcloud's own are.

        By the properties ``api_endpoint_overrides/iamcredentials`` and ``auth/token_host``
        (https://cloud.google.com/sdk/docs/properties): for private endpoints and emulators.
        """
        iam = environ.get("CLOUDSDK_API_ENDPOINT_OVERRIDES_IAMCREDENTIALS") or IAM_ENDPOINT
        token = environ.get("CLOUDSDK_AUTH_TOKEN_HOST") or TOKEN_ENDPOINT
        return cls(iam.rstrip("/"), token, environ.get(QUOTA_VARIABLE, ""))


@frozen
class Means:
    """What every call of Google's APIs is made with."""

    clock: Clock
    egress: Egress
    """By which proxies they are reached, as the upstreams of the route are."""


@frozen
class Target:
    """A service account to act as."""

    email: str
    delegates: tuple[str, ...] = ()
    """Accounts in between: the caller may act as the first, each as the next one."""
    endpoint: str = IAM_ENDPOINT
    """Scheme and host of the IAM Credentials API."""
