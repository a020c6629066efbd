"""The configuration as frozen data, each field with its meaning.

This module is the single description of the file: `keys` turns its metadata into what the
parser reads by, what `schema` prints and what docs/configuration.md is made from.  A
field without ``kind`` is not a key of the file.  Constructing a value has no side effect.

Units: durations are seconds as float, ``math.inf`` for ``off``; sizes are bytes, 0 for none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import field, replace
from enum import Enum
from pathlib import Path
from typing import Any, Literal

from proxy.config.proxies import Egress, Scheme
from proxy.frozen import frozen

OFF = math.inf

KIB = 1024

Stamp = tuple[int, int, int] | None
"""What changes when a file does: time of modification, inode, size; None where there is none."""

ANY_HOST = "any"
"""In ``allow_hosts``: callers may name the proxy as they like."""


def doc(text: str, **more: Any) -> dict[str, Any]:
    """Metadata of a field: its sentence in the reference, plus what the parser needs to know.

    ``kind`` names how the value is written (the table is in `keys`).  Where the field's own
    default is not what the file would say, ``written`` is the default as the file writes it, or
    ``shown`` is the default in words.
    """
    return {"help": text, **more}


@frozen
class Address:
    """Where a listener listens: a TCP host and port (0 = any free one), or a Unix socket path."""

    host: str = "127.0.0.1"
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@frozen
class Upstream:
    """A service that is called: ``scheme://host[:port][base]``."""

    scheme: Scheme
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


@frozen
class Service:
    """A Cloud Run service by name; missing parts come from the metadata server."""

    name: str
    region: str = ""
    project_number: str = ""

    def __str__(self) -> str:
        return ".".join(part for part in (self.name, self.region, self.project_number) if part)


@frozen(kw_only=True)
class Destination:
    """One address that a route leads to, with what its token is for."""

    upstream: Upstream | None = None
    """None as long as `service` is unresolved."""
    service: Service | None = None
    """Set where the file names a service instead of an upstream."""
    connect_to: Address | None = None
    """What is dialled instead of its own host; None for that, port 0 for the upstream's port."""
    audience: str | None = None
    """None where the route sends no token, or as long as it follows from an unresolved service."""

    def __str__(self) -> str:
        return f"service {self.service}" if self.upstream is None else str(self.upstream)

    @property
    def dialled(self) -> Address | None:
        """The address that connections are made to, None as long as it is not known."""
        place, upstream = self.connect_to, self.upstream
        if place is None:
            return None if upstream is None else Address(upstream.host, upstream.port)
        if place.path or place.port:
            return place
        return Address(place.host, 443 if upstream is None else upstream.port)


class Auth(Enum):
    """Which token a route's requests carry; ``auto`` is resolved by the parser."""

    ID_TOKEN = "id_token"  # noqa: S105 (a word of the configuration)
    ACCESS_TOKEN = "access_token"  # noqa: S105 (as above)
    NONE = "none"


class IdentityHeader(Enum):
    """The headers that Google's front ends read a token from."""

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


class PlatformErrors(Enum):
    """What becomes of the pages that Google's front end makes in a service's place."""

    AUTO = "auto"
    PASS = "pass"  # noqa: S105 (what is done with a page)
    EXPLAIN = "explain"


# Credentials are hashable values: one token cache exists for each of them and each audience, or
# scopes.


@frozen
class AutoCredentials:
    """Application default credentials in Google's order, then the metadata server."""


@frozen
class MetadataCredentials:
    """The metadata server of Cloud Run, GCE or GKE."""


@frozen
class GcloudCredentials:
    """The user who is logged in with gcloud; the token's audience cannot be chosen."""


@frozen
class ServiceAccountFile:
    """A service account's key file."""

    path: Path = field(metadata=doc("a service account's key file, as JSON", kind="readable"))


@frozen
class Impersonate:
    """Another service account, through the IAM Credentials API."""

    service_account: str = field(
        metadata=doc("the service account to act as", kind="service_account")
    )
    delegates: tuple[str, ...] = field(
        default=(),
        metadata=doc(
            "accounts between the source and the one to act as, in order",
            kind="service_accounts",
            shown="",
        ),
    )
    source: Credentials = field(
        default=AutoCredentials(),
        metadata=doc(
            "credentials that may impersonate; default auto", kind="credentials_source", shown=""
        ),
    )


@frozen
class TokenFile:
    """A file that somebody else keeps an ID token in; re-read when it changes."""

    path: Path = field(
        metadata=doc("a file that holds an ID token; re-read when it changes", kind="readable")
    )


Credentials = (
    AutoCredentials
    | MetadataCredentials
    | GcloudCredentials
    | ServiceAccountFile
    | Impersonate
    | TokenFile
)


@frozen(kw_only=True)
class Timeouts:
    """Deadlines of one exchange."""

    connect: float = field(
        default=10.0,
        metadata=doc(
            "to wait for a token, and again to connect (DNS, TCP and TLS together)",
            kind="deadline",
        ),
    )
    response: float = field(
        default=300.0,
        metadata=doc("from the end of the request to the response head", kind="deadline"),
    )
    idle: float = field(
        default=300.0,
        metadata=doc("silence on a started stream, tunnel or upload", kind="deadline"),
    )
    total: float = field(default=OFF, metadata=doc("the whole exchange", kind="deadline"))


RETRY_CAUSES = ("connect_failed", "reset", "timeout")
"""Classes of failure that ``retries.on`` may name beside status codes from 400 to 599."""


@frozen(kw_only=True)
class Retries:
    """When an attempt is repeated."""

    attempts: int = field(
        default=1, metadata=doc("attempts in all; 1 = no retry", kind="count", minimum=1)
    )
    on: tuple[str | int, ...] = field(
        default=("connect_failed", "reset", 429, 503),
        metadata=doc("failure classes and statuses (400 to 599) that are repeated", kind="causes"),
    )
    methods: tuple[str, ...] = field(
        default=("GET", "HEAD", "OPTIONS", "PUT", "DELETE"),
        metadata=doc("methods that are repeated", kind="methods"),
    )
    budget: float = field(
        default=0.2, metadata=doc("retries allowed as a share of the requests", kind="share")
    )
    backoff: float = field(
        default=0.05,
        metadata=doc("first pause, doubled each time and jittered", kind="pause"),
    )
    max_body: int = field(
        default=64 * KIB,
        metadata=doc(
            "largest request body that is kept for a repeat, the 401 replay included", kind="size"
        ),
    )


@frozen(kw_only=True)
class Limits:
    """Bounds of one route; 0 = none."""

    connections: int = field(
        default=1000, metadata=doc("connections to the upstream", kind="count", minimum=0)
    )
    tunnels: int = field(
        default=10_000,
        metadata=doc(
            "open tunnels, such as WebSockets; they do not count for `connections`",
            kind="count",
            minimum=0,
        ),
    )
    in_flight: int = field(
        default=0, metadata=doc("exchanges served at once", kind="count", minimum=0)
    )
    queue: int = field(
        default=0,
        metadata=doc("exchanges that may wait beyond `in_flight`", kind="count", minimum=0),
    )
    header_bytes: int = field(
        default=64 * KIB,
        metadata=doc("request line and fields; of responses too", kind="size"),
    )
    body_bytes: int = field(default=0, metadata=doc("request body", kind="size"))
    resets: int = field(
        default=2000,
        metadata=doc("exchanges an HTTP/2 caller may give up unanswered", kind="count", minimum=0),
    )


@frozen(kw_only=True)
class Route:
    """What is matched, where it goes and how it is treated, resolved as far as the file allows."""

    name: str
    listen: tuple[Address, ...] = field(
        metadata=doc(
            "one address or a list; a listener of its own comes before every shared one",
            kind="addresses",
            shown="the top-level `listen`",
        )
    )
    own_listener: bool = False
    """Whether the route itself names its listeners: such routes come before shared ones."""
    host: tuple[str, ...] = field(
        default=(),
        metadata=doc(
            "exact, or `*.suffix` for one or more labels before the suffix; case-insensitive, "
            "the request's port is ignored",
            kind="hosts",
            shown="any",
        ),
    )
    """Lower case; ``*.suffix`` for a wildcard; an IPv6 address in brackets; empty = any."""
    path: str = field(
        default="/",
        metadata=doc("prefix on a segment boundary, matched on the raw path", kind="path"),
    )
    """Without a trailing slash, except for ``/`` itself."""
    strip_path: bool = field(
        default=False, metadata=doc("forward the path without the prefix in `path`", kind="flag")
    )
    upstream: tuple[Upstream, ...] = field(
        default=(),
        metadata=doc(
            "`http(s)://host[:port][/base]`, or a list in order of preference; either this or "
            "`service` is required",
            kind="upstreams",
            shown="",
        ),
    )
    """As the file has it; `destinations` says where the route leads."""
    service: tuple[Service, ...] = field(
        default=(),
        metadata=doc(
            "`NAME[.REGION[.PROJECT_NUMBER]]`, a Cloud Run service by name, or a list in order of "
            "preference; missing parts come from the metadata server",
            kind="services",
            shown="",
        ),
    )
    """As the file has it, as `upstream`."""
    connect_to: tuple[Address, ...] = field(
        default=(),
        metadata=doc(
            "`host[:port]` or `unix:PATH` to dial instead, with Host, TLS name and audience "
            "unchanged (Private Service Connect, a restricted virtual address); a list has one "
            "for each upstream",
            kind="places",
            shown="the upstream's own host",
        ),
    )
    """As the file has it: none, one for all destinations, or one for each."""
    egress_proxy: Egress = field(
        default=Egress(),
        metadata=doc(
            "an HTTP proxy through which the upstream is dialled with CONNECT: "
            "`http://[user:pass@]host:port`, `off`, or `auto`: HTTPS_PROXY, ALL_PROXY and NO_PROXY "
            "in either case, as curl reads them; never for loopback and the metadata server",
            kind="egress",
            written="auto",
        ),
    )
    """With `auto` resolved."""
    audience: str | None = field(
        default=None,
        metadata=doc(
            "what the ID token is minted for, by every destination: any string, as it stands",
            kind="audience",
            shown="the upstream's origin, without a revision tag (`TAG---`)",
        ),
    )
    """As the file has it; each of the `destinations` says what its token is for."""
    destinations: tuple[Destination, ...] = ()
    """Where the route leads, in order of preference: what the keys above mean together."""
    auth: Auth = field(
        default=Auth.ID_TOKEN,
        metadata=doc(
            "`id_token`; `access_token` (OAuth 2.0) for Google's own APIs; `none`; `auto` is "
            "`id_token` for https, and `none` for plain http to a loopback host",
            kind="choice",
            choices=("auto", "id_token", "access_token", "none"),
            written="auto",
        ),
    )
    scopes: tuple[str, ...] = field(
        default=("https://www.googleapis.com/auth/cloud-platform",),
        metadata=doc("of the access token; an error with another `auth`", kind="scopes"),
    )
    access_token_hosts: tuple[str, ...] = field(
        default=(),
        metadata=doc(
            "hosts beside `*.googleapis.com` that may be sent an access token (exact, `*.suffix`)",
            kind="token_hosts",
        ),
    )
    """As `host`."""
    header: IdentityHeader = field(
        default=IdentityHeader.SERVERLESS,
        metadata=doc(
            "the header that carries the token",
            kind="field",
            choices=IdentityHeader,
            shown="`X-Serverless-Authorization`; for access tokens `Authorization`",
        ),
    )
    credentials: Credentials = field(
        default=AutoCredentials(),
        metadata=doc(
            "where tokens come from; `auto` is application default credentials in Google's "
            "order, then the metadata server",
            kind="credentials",
        ),
    )
    protocol: Protocol = field(
        default=Protocol.AUTO,
        metadata=doc(
            "what is spoken to the upstream; `auto` is what the caller speaks",
            kind="choice",
            choices=Protocol,
        ),
    )
    timeouts: Timeouts = field(
        default=Timeouts(), metadata=doc("deadlines of one exchange", kind="section", of=Timeouts)
    )
    retries: Retries = field(
        default=Retries(),
        metadata=doc(
            "when an attempt is repeated; `Retry-After` is honoured; never after a response byte",
            kind="section",
            of=Retries,
        ),
    )
    limits: Limits = field(
        default=Limits(), metadata=doc("bounds of one route; 0 = none", kind="section", of=Limits)
    )
    errors: ErrorFormat = field(
        default=ErrorFormat.AUTO,
        metadata=doc(
            "the language of errors that the proxy makes; `auto` recognises the caller",
            kind="choice",
            choices=ErrorFormat,
        ),
    )
    platform_errors: PlatformErrors = field(
        default=PlatformErrors.AUTO,
        metadata=doc(
            "pages that Google's front end makes in the service's place: `pass` them as they came,"
            " or `explain` them in the caller's language; `auto` explains them to callers whose"
            " language is recognised",
            kind="choice",
            choices=PlatformErrors,
        ),
    )
    allow_origins: tuple[str, ...] = field(
        default=(),
        metadata=doc(
            "browser origins that may call: `https://host[:port]`, `null`", kind="origins"
        ),
    )
    allow_credentials: bool = field(
        default=False,
        metadata=doc(
            "with `allow_origins`: their pages may send cookies and `Authorization`, and read the "
            "answers",
            kind="flag",
        ),
    )
    allow_hosts: tuple[str, ...] = field(
        default=(),
        metadata=doc(
            "which hosts a route without `host` serves on a loopback listener: `any`, or names "
            "(exact, or `*.suffix`) besides the loopback ones",
            kind="allowed_hosts",
            shown="loopback names and addresses",
        ),
    )
    """As `host`; with `ANY_HOST` among them, every host is served."""
    rewrite_redirects: bool = field(
        default=False,
        metadata=doc(
            "turn a `Location` that leads to the upstream's own origin into the address that the "
            "caller used",
            kind="flag",
        ),
    )
    set_headers: tuple[tuple[str, str], ...] = field(
        default=(),
        repr=False,  # A service's own key may be among them.
        metadata=doc("put on the request to the upstream", kind="header_values"),
    )
    remove_headers: tuple[str, ...] = field(
        default=(), metadata=doc("taken off the request to the upstream", kind="header_names")
    )
    ca_file: Path | None = field(
        default=None,
        metadata=doc(
            "extra roots for this upstream, PEM; read again at each reload; verification is never "
            "off; without effect on plain http",
            kind="file",
            shown="the system's roots",
        ),
    )

    @property
    def first(self) -> Destination:
        """The destination that is preferred; mostly the only one."""
        return self.destinations[0]

    @property
    def is_resolved(self) -> bool:
        """Whether the upstream of every destination is known."""
        return all(each.upstream is not None for each in self.destinations)

    def each(self) -> Iterator[Route]:
        """Yield a route for each destination, which leads there alone."""
        for destination in self.destinations:
            yield replace(self, destinations=(destination,))


@frozen(kw_only=True)
class Admin:
    """The admin listener."""

    listen: Address = field(
        default=Address("localhost", 9090), metadata=doc("one address", kind="address")
    )
    quit: bool = field(
        default=False, metadata=doc("accept `POST /quitquitquit` from loopback", kind="flag")
    )


@frozen(kw_only=True)
class Log:
    """What is logged, and how."""

    level: Literal["debug", "info", "warning", "error"] = field(
        default="info",
        metadata=doc(
            "the least severe record that is written",
            kind="choice",
            choices=("debug", "info", "warning", "error"),
        ),
    )
    format: Literal["auto", "json", "text"] = field(
        default="auto",
        metadata=doc(
            "`auto` is `text` on a terminal, else `json`",
            kind="choice",
            choices=("auto", "json", "text"),
        ),
    )
    access: Literal["errors", "all", "off"] = field(
        default="errors",
        metadata=doc("which exchanges are logged", kind="choice", choices=("errors", "all", "off")),
    )


@frozen
class Ignored:
    """Something in the configuration or the environment that has no effect."""

    what: str
    """The key or the variable."""
    why: str

    def __str__(self) -> str:
        return f"{self.what}: {self.why}"


@frozen(kw_only=True)
class Config:
    """A whole valid configuration."""

    routes: tuple[Route, ...]
    admin: Admin | None = field(
        default=Admin(),
        metadata=doc("address of the admin listener, or `off`", kind="admin", of=Admin),
    )
    log: Log = field(default=Log(), metadata=doc("what is logged, and how", kind="section", of=Log))
    drain: float = field(
        default=8.0,
        metadata=doc("after SIGTERM, how long exchanges may take to finish", kind="period"),
    )
    sigterm_delay: float = field(
        default=0.0,
        metadata=doc("after SIGTERM, how long the process stays even when idle", kind="pause"),
    )
    watch: bool = field(
        default=False,
        metadata=doc(
            "reload when the configuration file or a file it names has changed", kind="flag"
        ),
    )
    workers: int = field(
        # The maximum is more than any machine has cores: a typing error must not fork without end.
        default=1,
        metadata=doc("processes that serve", kind="count", minimum=1, maximum=256),
    )
    source: str = ""
    """Where it came from, for messages: a file name, ``AUTH_PROXY_CONFIG_YAML`` or the URL."""
    ignored: tuple[Ignored, ...] = field(default=(), compare=False)
    files: Mapping[Path, Stamp] = field(default_factory=dict, compare=False)
    """Every file that it was read from or that it names, as they were then."""

    @property
    def listeners(self) -> tuple[Address, ...]:
        """Every address that some route uses, in order of first use."""
        # Routes that share their listeners mostly share the tuple; comparing those is quicker.
        groups = {id(route.listen): route.listen for route in self.routes}.values()
        return tuple(dict.fromkeys(address for group in groups for address in group))
