"""TLS on the way to an upstream: the handshake, and what is wrong where it fails."""

from __future__ import annotations

import asyncio
import ssl

from proxy.config.model import Protocol, Route, Upstream
from proxy.doctor import certificate
from proxy.doctor.certificate import Certificate, Place
from proxy.doctor.findings import Advice, Finding, Outcome, Reason, Step, failed
from proxy.doctor.words import show_certificate, span, with_curl
from proxy.errors import UpstreamTlsFailed
from proxy.plane.trust import hint_for, whole_context
from proxy.redact import redact_foreign
from proxy.unreached import NO_TLS, no_tls, speaks_no_tls

OFFERED = ("h2", "http/1.1")
"""What ALPN offers, to see what the upstream chooses."""

SOON = 7 * 86400.0
"""Seconds before a certificate's end from which there is a warning."""


async def handshake(
    route: Route, upstream: Upstream, place: Place, deadline: float, now: float
) -> Finding:
    """Shake hands at `place` as the proxy would; `now` is the wall clock's time."""
    context = whole_context(route.ca_file, OFFERED)
    try:
        async with asyncio.timeout_at(deadline):
            session = await certificate.shake_hands(place, upstream.host, context)
    except ssl.SSLCertVerificationError as error:
        shown = await certificate.look(place, upstream.host, deadline)
        return _not_accepted(route, upstream, error, shown)
    except (OSError, TimeoutError) as error:
        return _broken_off(upstream, error)
    return _secured(route, session, now)


def _secured(route: Route, session: certificate.Session, now: float) -> Finding:
    shown = session.certificate
    speaks = "HTTP/2 and HTTP/1.1" if session.alpn == "h2" else "HTTP/1.1"
    left = shown.not_after - now
    facts = {
        "version": session.version,
        "alpn": session.alpn,
        "verified": True,
        **certificate.facts(shown),
    }
    outcome, advice = Outcome.OK, None
    if route.protocol is Protocol.H2 and session.alpn != "h2":
        outcome, advice = Outcome.FAILED, _NO_HTTP2
    elif left < SOON:
        outcome, advice = Outcome.WARNING, _ends_soon(left)
    return Finding(
        step=Step.TLS,
        outcome=outcome,
        text=f"{session.version}, {speaks}, certificate verified",
        notes=certificate.lines(shown, now),
        advice=advice,
        facts=facts,
    )


_NO_HTTP2 = Advice(
    reason="http2_not_offered",
    why="The route's protocol is h2, but the upstream offers only HTTP/1.1.",
    fix="Set protocol: auto, or have the upstream speak HTTP/2.",
)


def _ends_soon(left: float) -> Advice:
    return Advice(
        reason="certificate_ends_soon",
        why=f"The certificate ends in {span(left)}.",
        fix="Renew it.",
    )


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _not_accepted(
    route: Route,
    upstream: Upstream,
    error: ssl.SSLCertVerificationError,
    shown: Certificate | None,
) -> Finding:
    reason, why, fix = certificate.explain(error.verify_code, upstream.host, shown)
    if reason == "certificate_issuer_unknown":
        fix = hint_for(route.ca_file) or fix
    command = show_certificate(upstream.host, upstream.port)
    return Finding(
        step=Step.TLS,
        outcome=Outcome.FAILED,
        text=f"the certificate is not accepted: {error.verify_message.rstrip('.')}",
        notes=certificate.lines(shown, None) if shown else (),
        advice=Advice(reason=reason, why=why, fix=fix, command=command),
        facts={"verified": False, **(certificate.facts(shown) if shown else {})},
    )


def _broken_off(upstream: Upstream, error: Exception) -> Finding:
    reason: Reason
    command = show_certificate(upstream.host, upstream.port)
    if isinstance(error, TimeoutError):
        text, reason = "no answer to the handshake in time", "tls_timed_out"
        why = "The upstream accepted the connection and then said nothing."
        fix = "Check what listens there, or raise the route's timeouts.connect."
    elif speaks_no_tls(error):
        text, reason = "what listens there does not speak TLS", "tls_not_spoken"
        place = f"{_bracketed(upstream.host)}:{upstream.port}"
        why, fix = no_tls(place), NO_TLS
        command = with_curl(f"curl -i http://{place}/", command)
    else:
        said = error.reason if isinstance(error, ssl.SSLError) else None
        text, reason = "the handshake was broken off", "tls_failed"
        if said:
            text = f"the handshake failed: {redact_foreign(said.lower().replace('_', ' '))}"
        why = f"The upstream and this machine could not agree on TLS: {text}."
        fix = UpstreamTlsFailed.default_hint
    advice = Advice(reason=reason, why=why, fix=fix, command=command)
    return failed(Step.TLS, text, advice)
