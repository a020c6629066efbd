"""Certificates: what an upstream presents, verified or not, in words.

Verification is never off where anything is sent.  A certificate that was refused is read in a
separate handshake, which ends before any byte of a request is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from proxy.doctor.findings import Reason
from proxy.doctor.words import printable, span
from proxy.frozen import frozen

_NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME, see x509_vfy.h; Python has no name for it.

_NAMES_SHOWN = 4

Place = tuple[str, int]
"""An IP address and a port."""


@frozen
class Certificate:
    """The leaf that an upstream shows."""

    subject: str
    issuer: str
    names: tuple[str, ...]
    """DNS names and IP addresses that it is for."""
    not_before: float
    not_after: float
    """Unix seconds."""


@frozen
class Session:
    """A handshake that succeeded."""

    version: str
    alpn: str
    """Empty where the upstream chose none."""
    certificate: Certificate


async def shake_hands(place: Place, host: str, context: ssl.SSLContext) -> Session:
    """Connect, and verify; raises OSError, of which ssl's errors are a kind."""
    async with _secured(place, host, context) as tls:
        return Session(
            version=tls.version() or "",
            alpn=tls.selected_alpn_protocol() or "",
            certificate=_read(tls.getpeercert() or {}),
        )


async def look(place: Place, host: str, deadline: float) -> Certificate | None:
    """Return the certificate that `place` shows for `host`, None if it cannot be had."""
    with contextlib.suppress(OSError, TimeoutError, ValueError):
        async with asyncio.timeout_at(deadline):
            async with _secured(place, host, _seeing_only()) as tls:
                shown = tls.getpeercert(binary_form=True)
            # Python parses only verified certificates, so this one is verified against itself: that
            # makes it readable, and proves nothing.
            async with _secured(place, host, _trusting(shown or b"")) as tls:
                return _read(tls.getpeercert() or {})
    return None


@contextlib.asynccontextmanager
async def _secured(place: Place, host: str, context: ssl.SSLContext) -> Any:
    _, writer = await asyncio.open_connection(*place, ssl=context, server_hostname=host)
    try:
        yield writer.get_extra_info("ssl_object")
    finally:
        writer.transport.abort()


def _seeing_only() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _trusting(certificate: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=certificate)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VerifyFlags(_NO_CHECK_TIME)
    return context


def _read(shown: Mapping[str, Any]) -> Certificate:
    return Certificate(
        subject=_name(shown.get("subject", ()), "commonName"),
        issuer=_name(shown.get("issuer", ()), "commonName", "organizationName"),
        names=tuple(printable(value) for _, value in shown.get("subjectAltName", ())),
        not_before=ssl.cert_time_to_seconds(shown["notBefore"]),
        not_after=ssl.cert_time_to_seconds(shown["notAfter"]),
    )


def _name(parts: Iterable[Iterable[tuple[str, str]]], *wanted: str) -> str:
    """Return the `wanted` attributes of a distinguished name, as far as they are there."""
    found = {key: value for part in parts for key, value in part}
    return ", ".join(printable(found[key]) for key in wanted if key in found)


# In words


def lines(shown: Certificate, now: float | None) -> tuple[str, ...]:
    """Describe a certificate; `now` (wall clock) adds how long it is still valid."""
    left = f" ({span(shown.not_after - now)} left)" if now is not None else ""
    return (
        f"subject  {shown.subject or _joined(shown.names)}",
        f"issuer   {shown.issuer or 'nobody by name'}",
        f"valid    {_day(shown.not_before)} to {_day(shown.not_after)}{left}",
    )


def facts(shown: Certificate) -> dict[str, object]:
    """Return a certificate in JSON's types."""
    return {
        "subject": shown.subject,
        "issuer": shown.issuer,
        "names": list(shown.names),
        "not_before": _iso(shown.not_before),
        "not_after": _iso(shown.not_after),
    }


# Codes of x509_vfy.h.
_NOT_YET, _ENDED = 9, 10
_UNKNOWN_ISSUER = frozenset({2, 18, 19, 20, 21})
_OTHER_NAME = frozenset({62, 64})


def explain(code: int, host: str, shown: Certificate | None) -> tuple[Reason, str, str]:
    """Return what OpenSSL's verification error `code` means for `host`.

    That is the reason for machines, one sentence why, and what to change.
    """
    if code in _OTHER_NAME:
        names = _joined(shown.names) if shown and shown.names else "other names"
        why = f"The certificate is for {names}, not for {host}."
        fix = "Set the route's upstream to a name that the certificate has."
        return "certificate_for_other_name", why, fix
    if code == _ENDED:
        why = f"The certificate ended{f' on {_day(shown.not_after)}' if shown else ''}."
        fix = "Renew it; if that day is still to come, set this machine's clock."
        return "certificate_ended", why, fix
    if code == _NOT_YET:
        why = f"The certificate holds from {_day(shown.not_before) if shown else 'a later day'} on."
        return "certificate_not_yet_valid", why, "Set this machine's clock if it is behind."
    if code in _UNKNOWN_ISSUER:
        who = f" ({shown.issuer})" if shown and shown.issuer else ""
        why = f"No authority that is trusted here has issued the certificate{who}."
        fix = "For a private authority, or a firewall that inspects TLS, set the route's ca_file."
        return "certificate_issuer_unknown", why, fix
    why = "The certificate cannot be verified."
    return "certificate_refused", why, "Look at the chain that the upstream shows."


def _joined(names: tuple[str, ...]) -> str:
    more = len(names) - _NAMES_SHOWN
    shown = ", ".join(names[:_NAMES_SHOWN])
    return f"{shown} and {more} more" if more > 0 else shown


def _day(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"


def _iso(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
