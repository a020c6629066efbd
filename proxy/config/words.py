"""What routes are made of: addresses, services, choices, credentials; a part of `model`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """Where a listener listens: a TCP host and port (0 = any free one), or a Unix socket path."""

    host: str = "127.0.0.1"
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Upstream:
    """A service that is called: ``scheme://host[:port][base]``."""

    scheme: Literal["http", "https"]
    host: str
    """Lower case; an IPv6 address without brackets."""
    port: int
    base: str = ""
    """Path prefix put before the forwarded path, without a trailing slash."""

    @property
    def tls(self) -> bool:
        """Whether connections to it are encrypted."""
        return self.scheme == "https"

    @property
    def authority(self) -> str:
        """What ``Host`` says: the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        own = 443 if self.tls else 80
        return host if self.port == own else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """Scheme and authority (RFC 6454, 6.2)."""
        return f"{self.scheme}://{self.authority}"

    def __str__(self) -> str:
        return self.origin + self.base


@dataclass(frozen=True, slots=True)
class Service:
    """A Cloud Run service by name; missing parts come from the metadata server."""

    name: str
    region: str = ""
    project_number: str = ""

    def __str__(self) -> str:
        return ".".join(part for part in (self.name, self.region, self.project_number) if part)


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
