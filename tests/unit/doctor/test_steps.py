"""Steps whose sockets are in tests/e2e: what is decided about what they bring."""

from __future__ import annotations

import asyncio
import errno
import ssl
import threading

import pytest

from proxy.config.model import Upstream
from proxy.config.problems import ConfigError
from proxy.doctor import network, running
from proxy.doctor.certificate import Certificate, Session
from proxy.doctor.command import select
from proxy.doctor.findings import Outcome
from proxy.doctor.network import _unreachable
from proxy.doctor.tls import SOON, _broken_off, _secured
from proxy.unreached import Why, why
from tests.unit.config.reading import read
from tests.unit.doctor.patients import NOW, patient

HERE, THERE = ("192.0.2.1", 443), ("2001:db8::1", 443)
UPSTREAM = Upstream("https", "orders.example.com", 443)
REFUSED = why(ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed"))
NO_WAY = why(OSError(errno.ENETUNREACH, "Network is unreachable"))


@pytest.mark.parametrize(
    ("errors", "silent", "reason"),
    [
        ({HERE: REFUSED}, [], "connection_refused"),
        ({THERE: NO_WAY, HERE: REFUSED}, [], "connection_refused"),
        ({THERE: NO_WAY}, [HERE], "connect_timed_out"),
        ({}, [HERE], "connect_timed_out"),
        ({THERE: NO_WAY}, [], "connect_failed"),
    ],
)
def test_addresses_that_cannot_be_reached_are_told_apart(
    errors: dict[tuple[str, int], Why], silent: list[tuple[str, int]], reason: str
) -> None:
    finding = _unreachable(errors, silent, 10.0, "upstream")

    assert finding.advice is not None
    assert finding.advice.reason == reason
    assert len([finding.text, *finding.notes]) == len(errors) + len(silent)


def test_an_ipv6_address_is_written_in_brackets() -> None:
    finding = _unreachable({THERE: NO_WAY}, [], 1.0, "upstream")

    assert finding.text == "[2001:db8::1]:443: network is unreachable"
    assert finding.advice is not None
    assert finding.advice.why.startswith("There is no way to [2001:db8::1]:443 from here")
    assert '(("2001:db8::1", 443), 5)' in finding.advice.command


def session(left: float, alpn: str = "h2") -> Session:
    shown = Certificate("orders.example.com", "CA", ("orders.example.com",), 0.0, NOW + left)
    return Session("TLSv1.3", alpn, shown)


@pytest.mark.parametrize(
    ("left", "outcome"),
    [(SOON - 1, Outcome.WARNING), (SOON, Outcome.OK), (SOON + 1, Outcome.OK)],
)
def test_a_certificate_that_ends_within_a_week_is_warned_of(left: float, outcome: Outcome) -> None:
    finding = _secured(patient(), session(left), NOW)

    assert finding.outcome is outcome


@pytest.mark.parametrize(
    ("protocol", "alpn", "outcome"),
    [
        ("auto", "", Outcome.OK),
        ("auto", "http/1.1", Outcome.OK),
        ("h1", "h2", Outcome.OK),
        ("h2", "h2", Outcome.OK),
        ("h2", "http/1.1", Outcome.FAILED),
        ("h2", "", Outcome.FAILED),
    ],
)
def test_http2_must_be_offered_where_the_route_wants_it(
    protocol: str, alpn: str, outcome: Outcome
) -> None:
    assert _secured(patient(f"protocol: {protocol}"), session(1e9, alpn), NOW).outcome is outcome


def ssl_error(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, f"[SSL: {reason}] words (_ssl.c:1)")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("error", "reason", "text"),
    [
        (TimeoutError(), "tls_timed_out", "no answer to the handshake in time"),
        (
            ssl_error("WRONG_VERSION_NUMBER"),
            "tls_not_spoken",
            "what listens there does not speak TLS",
        ),
        (
            ssl_error("TLSV1_ALERT_PROTOCOL_VERSION"),
            "tls_failed",
            "the handshake failed: tlsv1 alert protocol version",
        ),
        (ConnectionResetError(), "tls_failed", "the handshake was broken off"),
    ],
)
def test_a_handshake_that_fails_is_explained(error: Exception, reason: str, text: str) -> None:
    finding = _broken_off(UPSTREAM, error)

    assert finding.advice is not None
    assert (finding.advice.reason, finding.text) == (reason, text)
    assert "orders.example.com" in finding.advice.command
    assert "443" in finding.advice.command


def test_no_more_addresses_are_tried_than_a_name_of_googles_has() -> None:
    assert network.ADDRESSES == 8


# Choosing routes

TWO = "routes: {a: {path: /a, upstream: 'https://a.example'}, b: {upstream: 'https://b.example'}}"


@pytest.mark.parametrize(
    ("names", "chosen"),
    [([], ["a", "b"]), (["b"], ["b"]), (["b", "a", "b"], ["b", "a"])],
)
def test_routes_are_chosen_by_name_in_the_order_asked_for(
    names: list[str], chosen: list[str]
) -> None:
    assert [route.name for route in select(read(TWO), names)] == chosen


def test_every_unknown_name_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        select(read(TWO), ["nobody", "a", "A1"])

    assert [str(problem) for problem in caught.value.problems] == [
        "A1: no route of f has this name; did you mean 'a'?",
        "nobody: no route of f has this name",
    ]


# Running


def test_a_call_that_hangs_does_not_hold_up_the_end() -> None:
    stuck = threading.Event()

    async def main() -> str:
        try:
            async with asyncio.timeout(0.05):
                await asyncio.to_thread(stuck.wait)
        except TimeoutError:
            return "ended"
        return "never"

    assert running.run(main()) == "ended"
    stuck.set()


def test_what_a_thread_raises_is_raised_where_it_is_waited_for() -> None:
    async def main() -> None:
        await asyncio.to_thread(int, "x")

    with pytest.raises(ValueError, match="invalid literal"):
        running.run(main())
