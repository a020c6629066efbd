"""Egress proxies: which HTTP proxy an upstream is reached through, as the file or curl says.

One place for the rules, whoever dials: the data path, google-auth's calls and `doctor`.  The
environment is read as curl reads it (https://curl.se/docs/manpage.html#ENVIRONMENT and
lib/noproxy.c), exact in what NO_PROXY exempts and what it does not; a test compares the two.

Credentials in a proxy's URL are secrets: no message shows a URL that could not be read.
"""

from __future__ import annotations

import ipaddress
import re
from base64 import b64encode
from collections.abc import Iterator, Mapping
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from proxy.config.addresses import host_and_port, is_loopback
from proxy.config.model import Destination, Route
from proxy.config.proxies import Egress, HttpProxy, Scheme

AUTO = "auto"
OFF = "off"

URL = r"[hH][tT][tT][pP]://([^/?#@\s]*@)?[^/?#@\s]+/?"
"""What a schema can say of a proxy's URL; `http_proxy` is stricter."""

_VARIABLES: Mapping[Scheme, tuple[str, ...]] = {
    "https": ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"),
    # Not HTTP_PROXY, which a CGI program's caller can set: https://httpoxy.org
    "http": ("http_proxy", "all_proxy", "ALL_PROXY"),
}
"""What curl reads for each scheme, in its order; an empty variable counts as unset."""

_EXEMPT = ("no_proxy", "NO_PROXY")

_PORT_OF_CURL = 1080
"""Where curl finds a proxy whose URL names no port."""

_WRITE = "write http://HOST:PORT or http://USER:PASSWORD@HOST:PORT"
_PARTS = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.-]*)://)?(?:([^/?#]*)@)?([^/?#@]*)(/?)", re.DOTALL)
_CONTROLS = re.compile(rb"[\x00-\x1f\x7f]")
_BLANKS_AND_COMMAS = re.compile(r"[ \t,]+")
# Where a cloud's metadata is: a proxy elsewhere would be asked for another machine's.
_METADATA = frozenset({"metadata.google.internal", "metadata"})
_METADATA_IPV6 = ipaddress.ip_network("fd00:ec2::254/128")


def http_proxy(text: str, *, port: int | None = None, variable: str = "") -> HttpProxy:
    """Return the proxy that the URL `text` names.

    `port` is taken where it has none, which is refused by default; `variable` is where it stands.
    Raises ValueError with a sentence that shows nothing of it.
    """
    found = _PARTS.fullmatch(text.strip())
    if found is None or not found[3]:
        raise ValueError(f"is not the URL of an HTTP proxy; {_WRITE}")
    scheme, user, place, _ = found.groups()
    if scheme is not None and scheme.lower() != "http":
        raise ValueError(
            "names a proxy that is not reached by http://, and no other is supported (what goes "
            f"through it has the upstream's own TLS); {_WRITE}"
        )
    try:
        host, named = host_and_port(place, "")
    except ValueError:
        raise ValueError(f"has no usable host and port; {_WRITE}") from None
    if (named or port) is None:
        raise ValueError(f"has no port; {_WRITE}")
    return HttpProxy(host, named or port or 0, _basic(user), variable)


def _basic(user: str | None) -> str:
    """Return the value of Proxy-Authorization for ``USER[:PASSWORD]`` (RFC 7617, 2)."""
    if not user:
        return ""
    name, _, password = user.partition(":")
    words = unquote_to_bytes(name), unquote_to_bytes(password)
    if b":" in words[0] or any(map(_CONTROLS.search, words)):
        raise ValueError("has a user name with a colon, or a control character in its credentials")
    return "Basic " + b64encode(b":".join(words)).decode("ascii")


# --- the environment -------------------------------------------------------------------------


def of_environment(env: Mapping[str, str]) -> Egress:
    """Return what the variables of curl say; those that cannot be used are left out."""
    return _read(*(_first(env, names) for names in (*_VARIABLES.values(), _EXEMPT)))


def unusable(env: Mapping[str, str], scheme: Scheme) -> str:
    """Return why the variable for `scheme` names no proxy that can be used; else nothing."""
    variable, text = _first(env, _VARIABLES[scheme])
    fault = _fault(variable, text) if variable else ""
    return f"{variable} {fault}" if fault else ""


@lru_cache(maxsize=16)  # Each of thousands of routes asks the same.
def _read(https: tuple[str, str], http: tuple[str, str], exempt: tuple[str, str]) -> Egress:
    return Egress(_usable(*https), _usable(*http), tuple(_entries(exempt[1])), auto=True)


def _first(env: Mapping[str, str], names: tuple[str, ...]) -> tuple[str, str]:
    return next(((name, env[name]) for name in names if env.get(name)), ("", ""))


def _usable(variable: str, text: str) -> HttpProxy | None:
    if not variable or _fault(variable, text):
        return None
    return http_proxy(text, port=_PORT_OF_CURL, variable=variable)


def _fault(variable: str, text: str) -> str:
    try:
        http_proxy(text, port=_PORT_OF_CURL, variable=variable)
    except ValueError as error:
        return str(error)
    return ""


def _entries(exempt: str) -> Iterator[str]:
    """Yield the entries of NO_PROXY; the star counts only where it stands alone."""
    if exempt == "*":
        yield exempt
        return
    for entry in _BLANKS_AND_COMMAS.split(exempt.lower()):
        if entry.strip("*"):
            yield entry


# Entries as other programs understand them; what they mean is in the groups.
_OTHERS = re.compile(
    r"\*\.?([a-z0-9._-]+)(?::[0-9]+)?|([a-z0-9._-]+):[0-9]+|\[([0-9a-f:.]+)\](?::[0-9]+)?"
)


def misunderstood(env: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Yield the variable, the entry and what to write for what NO_PROXY says in vain."""
    variable, text = _first(env, _EXEMPT)
    for entry in _entries(text):
        if found := _OTHERS.fullmatch(entry):
            yield variable, entry, next(filter(None, found.groups()))


def shown(egress: Egress) -> str:
    """Write the value of the key; what the environment says is `auto`, and no secret is shown."""
    if egress.auto:
        return AUTO
    return OFF if egress.https is None else str(egress.https)


# --- judging an upstream -----------------------------------------------------------------------


def proxy_for(egress: Egress, scheme: Scheme, host: str) -> HttpProxy | None:
    """Return the proxy through which `host` is dialled, None where it is dialled directly.

    `host` is a name in lower case, or an address without brackets.
    """
    proxy = egress.https if scheme == "https" else egress.http
    return None if proxy is None or is_direct(host, egress) else proxy


def address_of(destination: Destination) -> tuple[Scheme, str]:
    """Return scheme and host that are dialled; of a service's, as far as it is known.

    The host of a Unix socket is empty.
    """
    upstream, place = destination.upstream, destination.dialled
    scheme: Scheme = "https" if upstream is None else upstream.scheme
    if place is None:
        return scheme, "service.run.app"
    return scheme, "" if place.path else place.host


def proxy_of(route: Route, destination: Destination) -> HttpProxy | None:
    """Return the proxy through which a destination of `route` is dialled, None for none."""
    return proxy_for(route.egress_proxy, *address_of(destination))


def is_direct(host: str, egress: Egress) -> bool:
    """Tell whether no proxy is asked for `host`, whatever the scheme."""
    return is_here(host) or is_exempt(host, egress.exempt)


def is_here(host: str) -> bool:
    """Tell whether no proxy is ever asked for `host`: this machine, and the metadata server."""
    if not host or is_loopback(host) or host in _METADATA or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return address.is_link_local or address in _METADATA_IPV6


def is_exempt(host: str, entries: tuple[str, ...]) -> bool:
    """Tell whether an entry of NO_PROXY exempts `host`, as curl does.

    A name by itself and as a suffix, with or without a dot before it; an address by itself, or by
    its network.  What has a port, brackets or a star in it matches nothing.
    """
    if entries == ("*",):
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        name = host.removesuffix(".")
        return any(_is_suffix(entry, name) for entry in entries)
    return any(_is_network(entry, address) for entry in entries)


def _is_suffix(entry: str, name: str) -> bool:
    suffix = entry.removesuffix(".").removeprefix(".")
    return suffix != "" and (name == suffix or name.endswith("." + suffix))


def _is_network(entry: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    place, slash, bits = entry.partition("/")
    try:
        if not slash or bits == "0":  # Of no bits curl thinks as of all.
            return ipaddress.ip_address(place) == address
        return bits.isdigit() and address in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False
