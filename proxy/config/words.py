"""The words that a route may choose between, and the kinds of credentials; part of `model`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path


class Auth(Enum):
    """Whether a route's requests carry an ID token; ``auto`` is resolved by the parser."""

    ID_TOKEN = "id_token"  # noqa: S105 (a word of the configuration)
    NONE = "none"


class IdentityHeader(Enum):
    """The headers that Google's front ends read an ID token from."""

    SERVERLESS = "X-Serverless-Authorization"
    AUTHORIZATION = "Authorization"
    PROXY = "Proxy-Authorization"


class Protocol(Enum):
    """What is spoken to the upstream; ``auto`` is what the caller speaks."""

    AUTO = "auto"
    H1 = "h1"
    H2 = "h2"


class ErrorFormat(Enum):
    """The language of the errors that the proxy makes."""

    AUTO = "auto"
    PROBLEM = "problem"
    TRPC = "trpc"
    CONNECT = "connect"
    GRPC = "grpc"
    GRPC_WEB = "grpc_web"
    TWIRP = "twirp"
    JSONRPC = "jsonrpc"


# Credentials are hashable values: one token cache entry exists per (credentials, audience).


@dataclass(frozen=True, slots=True)
class AutoCredentials:
    """Application default credentials in Google's order, then the metadata server."""


@dataclass(frozen=True, slots=True)
class MetadataCredentials:
    """The metadata server of Cloud Run, GCE or GKE."""


@dataclass(frozen=True, slots=True)
class GcloudCredentials:
    """The user who is logged in with gcloud; the token's audience cannot be chosen."""


@dataclass(frozen=True, slots=True)
class ServiceAccountFile:
    """A service account's key file."""

    path: Path


@dataclass(frozen=True, slots=True)
class TokenFile:
    """A file that somebody else keeps an ID token in; re-read when it changes."""

    path: Path


@dataclass(frozen=True, slots=True)
class Impersonate:
    """Another service account, through the IAM Credentials API."""

    service_account: str
    delegates: tuple[str, ...] = ()
    source: Credentials = AutoCredentials()


Credentials = (
    AutoCredentials
    | MetadataCredentials
    | GcloudCredentials
    | ServiceAccountFile
    | TokenFile
    | Impersonate
)
