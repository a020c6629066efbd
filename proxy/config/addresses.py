"""Words of the configuration that name a place: listeners, upstreams, services, hosts, origins.

Pure: text in, value out.  Every function raises `ValueError` with a sentence that says what was
written and what to write instead.
"""

from __future__ import annotations

import ipaddress
import re
import sys
from collections.abc import Iterable

from proxy.config.model import ANY_HOST, Address, Service, Upstream
from proxy.config.problems import quoted
from proxy.config.proxies import Scheme
from proxy.system import HAS_UNIX_SOCKETS

# What a schema can say; the functions below are stricter.
ADDRESS = r"unix:/.+|[0-9]{1,5}|(\[[^\]\s]+\]|[^:/\[\]\s]*):[0-9]{1,5}"
SERVICE = r"[a-z]([a-z0-9-]*[a-z0-9])?(\.[a-z]+(-[a-z]+)*[0-9]+(\.[0-9]+)?)?"
CONNECT_TO = r"unix:/.+|(\[[^\]\s]+\]|[^:/\[\]\s@]+)(:[0-9]{1,5})?"
UPSTREAM = r"[hH][tT][tT][pP][sS]?://[^/?#@\s]+(/[^?#\s]*)?"
HOST = r"(\*\.)?[^*/:\[\]\s]+|\[[^\]\s]+\]"
PATH = r"/[^?#\s]*"
ORIGIN = r"null|[A-Za-z][A-Za-z0-9+.-]*://[^/?#@\s]+"

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PATH_CHARACTERS = re.compile(r"(%[0-9A-Fa-f]{2}|[!-$&->@-~])*")
_LONGEST_LABEL = 63  # RFC 1035, 2.3.4.
_LONGEST_HOST = 253  # RFC 1035, 2.3.4: 255 bytes on the wire.
# unix(7): sun_path holds 108 bytes, 104 on macOS, one of them the final NUL.
_LONGEST_SOCKET = 103 if sys.platform == "darwin" else 107
_LONGEST_PATH = 1024  # The cost of matching grows with it (`routing`).
_HIGHEST_PORT = 65535
_OWN_PORTS = {"http": 80, "https": 443}
# IDNA 2003 and 2008 map these to different names, and Python's codec is of 2003.
_AMBIGUOUS = re.compile("[ßς\u200c\u200d]")


def address(text: str) -> Address:
    """Return where to listen: ``HOST:PORT``, ``:PORT``, ``PORT`` or ``unix:/path``."""
    if text.startswith("unix:"):
        return _socket(text.removeprefix("unix:"))
    host, _, port_text = text.rpartition(":")
    if not re.fullmatch(r"[0-9]{1,9}", port_text) or "/" in host:
        raise ValueError(
            f"{quoted(text)} is not an address; "
            "write localhost:8081, 8081, [::1]:8081 or unix:/run/proxy.sock"
        )
    if ":" in host and not host.startswith("["):
        raise ValueError(f"{quoted(text)}: write an IPv6 address in brackets, such as [::1]:8081")
    if host == "*":
        raise ValueError(f"{quoted(text)}: write 0.0.0.0 or [::] for every address of the machine")
    # No host means loopback: listening to the whole network must be somebody's choice.
    # Both of its addresses, since some clients (Node.js 17 to 19) try ::1 alone for localhost.
    return Address(_host_or_ip(host) if host else "localhost", _port(port_text, lowest=0))


def connect_to(text: str) -> Address:
    """Return where to dial: ``HOST[:PORT]`` or ``unix:/path``; port 0 is the upstream's own."""
    if text.startswith("unix:"):
        return _socket(text.removeprefix("unix:"))
    if "/" in text or "@" in text or (text.count(":") > 1 and not text.startswith("[")):
        raise ValueError(
            "is not a place to dial; write HOST, HOST:PORT, [::1]:443 or unix:/run/service.sock"
        )
    host, port = host_and_port(text, text)
    return Address(host, port or 0)


def show_place(place: Address) -> str:
    """Write a place as `connect_to` reads it."""
    return str(place) if place.path or place.port else str(place).removesuffix(":0")


def app(text: str) -> Address:
    """Return where an app listens that is to be protected: an address, or ``http://HOST:PORT``."""
    if "://" not in text:
        found = address(text)
    else:
        url = upstream(text)
        if url.scheme != "http":
            raise ValueError("Cloud Run calls apps over plain HTTP; write http://HOST:PORT")
        if url.base:
            raise ValueError(
                "an app is protected as a whole; write http://HOST:PORT without a path"
            )
        found = Address(url.host, url.port)
    if not found.path and not found.port:
        raise ValueError(f"{quoted(text)} is no place to call; write the port that the app has")
    return found


def _socket(path: str) -> Address:
    if not HAS_UNIX_SOCKETS:
        raise ValueError("this system has no Unix sockets; write one such as localhost:8081")
    if not path.startswith("/"):
        raise ValueError(f"{quoted('unix:' + path)} needs an absolute path: unix:/run/proxy.sock")
    if len(path.encode()) > _LONGEST_SOCKET:
        raise ValueError(f"the socket's path is longer than {_LONGEST_SOCKET} bytes; shorten it")
    return Address(path=path)


def upstream(text: str) -> Upstream:
    """Return the parts of ``http(s)://host[:port][/base]``."""
    found = re.fullmatch(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^?#]*)(.*)", text, re.DOTALL)
    # User information and queries hold secrets, so no message shows them.
    if found is None:
        shown = "this" if "@" in text else quoted(text.partition("?")[0])
        raise ValueError(f"{shown} is not a URL; write https://HOST or http://HOST:PORT")
    scheme, authority, base, rest = found.groups()
    if "@" in authority:
        raise ValueError("an upstream has no user or password; use set_headers for credentials")
    if rest:
        raise ValueError("an upstream has no query and no fragment; remove what follows ? or #")
    own_port = _OWN_PORTS.get(scheme.lower())
    if own_port is None:
        raise ValueError(f"{quoted(scheme)} cannot be called; write https:// or http://")
    host, port = host_and_port(authority, text)
    base = "" if base in {"", "/"} else path(base)
    return Upstream(_scheme(scheme), host, own_port if port is None else port, base)


def service(text: str) -> Service:
    """Return the parts of ``NAME[.REGION[.PROJECT_NUMBER]]``."""
    if not re.fullmatch(SERVICE, text):
        raise ValueError(
            f"{quoted(text)} is not NAME[.REGION[.PROJECT_NUMBER]]; write a Cloud Run service "
            "such as billing, billing.us-central1 or billing.us-central1.123456789012"
        )
    found = Service(*text.split("."))
    _service_label(found)
    return found


def service_upstream(service: Service) -> Upstream:
    """Return the deterministic URL of a service, all parts of which must be known.

    ``https://SERVICE-PROJECT_NUMBER.REGION.run.app``:
    https://cloud.google.com/run/docs/triggering/https-request#deterministic
    """
    return Upstream("https", f"{_service_label(service)}.{service.region}.run.app", 443)


def _service_label(service: Service) -> str:
    """Return the first label of a service's host, as far as its parts are known."""
    label = f"{service.name}-{service.project_number}" if service.project_number else service.name
    if len(label) > _LONGEST_LABEL:
        raise ValueError(
            f"{quoted(label)} is longer than {_LONGEST_LABEL} characters, so Cloud Run gives it "
            "no such URL; write the service's own URL as upstream"
        )
    return label


def _scheme(text: str) -> Scheme:
    return "https" if text.lower() == "https" else "http"


def host_and_port(authority: str, text: str) -> tuple[str, int | None]:
    """Split ``host[:port]``, a part of `text`; an IPv6 address loses its brackets."""
    found = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(?::(.*))?", authority, re.DOTALL)
    if found is None or not found[1]:
        raise ValueError(f"{quoted(text)} has no host; write https://HOST or http://HOST:PORT")
    return _host_or_ip(found[1]), None if found[2] is None else _port(found[2], lowest=1)


def _port(text: str, *, lowest: int) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or not lowest <= int(text) <= _HIGHEST_PORT:
        raise ValueError(f"{quoted(text)} is not a port; write {lowest} to {_HIGHEST_PORT}")
    return int(text)


def _host_or_ip(text: str) -> str:
    """Return a host name, an IPv4 address, or an IPv6 address without its brackets."""
    if not text.startswith("["):
        return host_name(text)
    try:
        inner = ipaddress.IPv6Address(text[1:-1])
    except ValueError:
        inner = None
    # A zone names an interface of one machine and cannot stand in a URL or a Host header.
    if inner is None or inner.scope_id is not None or not text.endswith("]"):
        raise ValueError(f"{quoted(text)} is not an IPv6 address; write one such as [::1]")
    return str(inner)


def host_name(text: str) -> str:
    """Return a host name in lower case, international letters as ``xn--`` (RFC 5890)."""
    name = _ascii(text).lower().removesuffix(".")
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        return _ipv4(name)
    if len(name) > _LONGEST_HOST or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError(
            f"{quoted(text)} is not a host name; write letters, digits, '-' and '.', "
            "such as billing.internal"
        )
    return name


def _ascii(text: str) -> str:
    if text.isascii():
        return text
    if _AMBIGUOUS.search(text):
        raise ValueError(f"{quoted(text)} has two international forms; write the xn-- form")
    try:
        return text.encode("idna").decode()
    except UnicodeError:
        raise ValueError(f"{quoted(text)} is not a host name; write its xn-- form") from None


def _ipv4(text: str) -> str:
    # Stricter than getaddrinfo, which also reads 127.1 and 0x7f000001 as addresses.
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        raise ValueError(
            f"{quoted(text)} is not an IPv4 address; write four numbers such as 127.0.0.1"
        ) from None


def host(text: str) -> str:
    """Return a rule for ``Host``: a name, an address, or ``*.suffix``."""
    if text == "*":
        raise ValueError("any host is the default; leave host out")
    if re.fullmatch(r"(\[[^\]]*\]|[^:]*):[0-9]+", text):
        raise ValueError(
            f"{quoted(text)}: the port of a request is ignored; write the host alone, "
            "and use listen for a port of its own"
        )
    if "/" in text or (":" in text and not text.startswith("[")):
        raise ValueError(
            f"{quoted(text)} is not a host; write one such as billing.internal or [::1]"
        )
    wildcard, rest = ("*.", text[2:]) if text.startswith("*.") else ("", text)
    if "*" in rest:
        raise ValueError(f"{quoted(text)}: a * can only stand first, as in *.billing.internal")
    if text.startswith("["):
        return f"[{_host_or_ip(text)}]"
    name = host_name(rest)
    if wildcard and _NUMBER.fullmatch(name.rpartition(".")[2]):
        raise ValueError(f"{quoted(text)}: an IP address has no subdomains; write it in full")
    return wildcard + name


def is_host_of(rules: Iterable[str], host: str) -> bool:
    """Tell whether one of `rules`, as `host` returns them, is for `host`, an upstream's."""
    shown = f"[{host}]" if ":" in host else host
    return any(
        shown.endswith(rule[1:]) if rule.startswith("*.") else shown == rule for rule in rules
    )


def allowed_host(text: str) -> str:
    """Return a rule for ``Host`` as `host` does, or `ANY_HOST`."""
    return text if text == ANY_HOST else host(text)


def path(text: str) -> str:
    """Return a path prefix without its trailing slash; ``/`` stays."""
    if not text.startswith("/"):
        raise ValueError(f"{quoted(text)} is not a path; it begins with /, such as /orders")
    if "?" in text or "#" in text:
        raise ValueError("a path has no query and no fragment; remove what follows ? or #")
    if not _PATH_CHARACTERS.fullmatch(text):
        raise ValueError(
            f"{quoted(text)} is not a path as it travels; percent-encode spaces and other letters"
        )
    if text.endswith("/*"):
        raise ValueError(f"{quoted(text)}: a path matches all below it; write {text[:-2] or '/'}")
    if len(text) > _LONGEST_PATH:
        raise ValueError(f"{quoted(text)} is longer than {_LONGEST_PATH} characters; shorten it")
    trimmed = text.removesuffix("/")
    # Upstreams resolve these: what they serve would not be what was matched here.
    if {"", ".", ".."} & set(trimmed.split("/")[1:]):
        raise ValueError(f"{quoted(text)} has an empty, '.' or '..' segment; write it without")
    return trimmed or "/"


def origin(text: str) -> str:
    """Return a browser's origin as it is sent in ``Origin`` (RFC 6454, 6.2), or ``null``."""
    if text == "null":
        return text
    if text == "*":
        raise ValueError("* would let every web page call; name each origin")
    found = re.fullmatch(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#@\s]+)", text)
    if found is None:
        raise ValueError(
            f"{quoted(text)} is not an origin; write https://HOST or http://HOST:PORT, "
            "without a path or final /"
        )
    scheme = found[1].lower()
    name, port = host_and_port(found[2], text)
    shown = f"[{name}]" if ":" in name else name
    own = port is None or port == _OWN_PORTS.get(scheme)
    return f"{scheme}://{shown}" if own else f"{scheme}://{shown}:{port}"


def is_on_loopback(listener: Address) -> bool:
    """Tell whether a listener takes TCP connections, and those of this machine alone."""
    return not listener.path and is_loopback(listener.host)


def is_loopback(host: str) -> bool:
    """Tell whether `host` can only be this machine: by address, or the name ``localhost``.

    An IPv4 address may be written as an IPv6 one (RFC 4291, 2.5.5.2), and have a zone.
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host == "localhost"
    # Python looks into these by itself from 3.13 on only.
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback


def is_address(host: str) -> bool:
    """Tell whether `host` is an IP address, not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
