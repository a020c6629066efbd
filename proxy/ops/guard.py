"""Decides whether the admin listener answers a request.  Pure: sees headers and the peer.

Whoever can open a connection may read what the listener says, which is nothing secret, with
one exception: a browser opens connections for whatever page it shows.  A page of another site
must neither read nor trigger anything here, so

- what a browser marks as sent across sites is refused (``Sec-Fetch-Site``, ``Origin``);
- a page whose own name was pointed at this machine (DNS rebinding) counts as same-origin for
  the browser, and only the ``Host`` shows it: from a loopback peer, where the developer's
  browser is, the host must be one that nobody else can own.  Peers from elsewhere were let in
  by an operator who opened the listener, under names that only they know, so any host will do;
- the probes are exempt from the rule for hosts: they say one word, and what a platform sends
  as ``Host`` is its own business.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from proxy.config.addresses import is_address, is_loopback
from proxy.plane.guard import is_same_origin

PROBES: Final = frozenset({"/startup", "/readiness", "/liveness"})
QUIT: Final = "/quitquitquit"

# https://www.w3.org/TR/fetch-metadata/#sec-fetch-site-header: "none" is the user's own doing.
# Any other value may be a kind of site that no specification knew yet.
_OWN_SITES: Final = frozenset({"none", "same-origin"})


def refusal(
    path: str, headers: Mapping[str, str], peer: str | None, listen_host: str
) -> str | None:
    """Return why the request is refused, None if it is not.

    The names of `headers` are in lower case.  `peer` is the caller's IP address, None on a
    Unix socket.  `listen_host` is the host that the listener was configured with.
    """
    if headers.get("sec-fetch-site", "none").lower() not in _OWN_SITES:
        return "a page of another site may not ask; open the address itself"
    host = headers.get("host", "")
    origin = headers.get("origin")
    if origin is not None and not is_same_origin(origin.encode("latin-1"), host.encode("latin-1")):
        return "a page of another origin may not ask"
    if path == QUIT and peer is not None and not is_loopback(peer):
        return "only a caller on this machine may ask the proxy to quit"
    if path in PROBES or peer is None or not is_loopback(peer):
        return None
    if host and not _is_own_name(_name_of(host), listen_host):
        return "this host name is not the listener's; use an IP address or localhost"
    return None


def _name_of(host: str) -> str:
    """Return a ``Host`` without its port and brackets, in lower case."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def _is_own_name(name: str, listen_host: str) -> bool:
    """Whether no stranger can own the name: nobody sells addresses and names without a dot.

    Names without a dot are localhost, and the names of containers on Cloud Run and in Compose.
    RFC 6761, 6.3: whatever ends in .localhost is this machine.
    """
    if "." not in name or name.endswith(".localhost") or name == listen_host.lower():
        return True
    return is_address(name)
