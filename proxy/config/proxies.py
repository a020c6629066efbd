"""HTTP proxies as frozen data; `egress` reads them, and judges which upstreams they are for."""

from __future__ import annotations

from dataclasses import field
from typing import Literal

from proxy.frozen import frozen

Scheme = Literal["http", "https"]
"""Of an upstream."""


@frozen
class HttpProxy:
    """An HTTP proxy that opens tunnels with CONNECT (RFC 9110, 9.3.6)."""

    host: str
    """Lower case; an IPv6 address without brackets."""
    port: int
    authorization: str = field(default="", repr=False)
    """What Proxy-Authorization says, a secret; empty for none."""
    variable: str = ""
    """The environment variable that names it; empty where the file does."""

    @property
    def authority(self) -> str:
        """Host and port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"http://{self.authority}"


@frozen
class Egress:
    """By which proxies upstreams are reached; `egress.proxy_for` judges one upstream."""

    https: HttpProxy | None = None
    """For https:// upstreams; None = directly."""
    http: HttpProxy | None = None
    """For http:// upstreams."""
    exempt: tuple[str, ...] = ()
    """The entries of NO_PROXY, lower case."""
    auto: bool = False
    """Whether this is what the environment says."""
