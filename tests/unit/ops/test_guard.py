"""Who may ask the admin listener."""

from __future__ import annotations

import pytest

from proxy.config.addresses import is_loopback
from proxy.ops.guard import PROBES, QUIT, refusal

LOCAL = "127.0.0.1"
AWAY = "10.1.2.3"


def refused(
    path: str = "/status",
    *,
    peer: str | None = LOCAL,
    listen: str = LOCAL,
    **headers: str,
) -> bool:
    sent = {name.replace("_", "-").lower(): value for name, value in headers.items()}
    return refusal(path, sent, peer, listen) is not None


@pytest.mark.parametrize(
    ("site", "is_refused"),
    [
        ("cross-site", True),
        ("same-site", True),
        ("Cross-Site", True),
        ("something-new", True),
        ("", True),
        ("same-origin", False),
        ("none", False),
    ],
)
@pytest.mark.parametrize("path", ["/", "/status", "/metrics", QUIT, *PROBES])
def test_what_a_browser_sends_across_sites_is_refused(
    path: str,
    site: str,
    is_refused: bool,  # noqa: FBT001 (a row of the table)
) -> None:
    assert refused(path, Host="localhost:9090", Sec_Fetch_Site=site) is is_refused


@pytest.mark.parametrize(
    ("origin", "is_refused"),
    [
        ("http://localhost:9090", False),
        ("https://localhost:9090", False),
        ("http://LOCALHOST:9090", False),
        ("http://localhost:9091", True),
        ("http://localhost:8080", True),
        ("http://localhost", True),
        ("https://evil.example", True),
        ("null", True),
        ("", True),
        ("http://", True),
        ("http://localhost:9090/", True),
        ("file://localhost:9090", True),
    ],
)
def test_an_origin_must_be_the_listeners_own(
    origin: str,
    is_refused: bool,  # noqa: FBT001 (a row of the table)
) -> None:
    assert refused(Host="localhost:9090", Origin=origin) is is_refused


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:9090",
        "127.0.0.1",
        "[::1]:9090",
        "[::1]",
        "localhost:9090",
        "LOCALHOST",
        "app.localhost:9090",
        "auth-proxy:9090",
        "192.168.1.7:9090",
        "",
    ],
)
@pytest.mark.parametrize("path", ["/status", QUIT])
def test_a_host_that_no_stranger_can_own_is_answered(host: str, path: str) -> None:
    assert not refused(path, Host=host)


@pytest.mark.parametrize(
    "host",
    ["evil.example:9090", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "a."],
)
@pytest.mark.parametrize("path", ["/", "/status", "/metrics", QUIT])
def test_a_name_that_was_pointed_at_this_machine_is_refused(host: str, path: str) -> None:
    assert refused(path, Host=host)
    assert refused(path, Host=host, Origin=f"http://{host}")


def test_the_name_that_the_listener_was_given_is_its_own() -> None:
    assert not refused(Host="admin.corp.example:9090", listen="admin.corp.example")


@pytest.mark.parametrize("path", sorted(PROBES))
def test_a_probe_is_answered_whatever_the_platform_calls_the_host(path: str) -> None:
    assert not refused(path, Host="probe.platform.example")


def test_a_peer_from_elsewhere_may_use_any_name() -> None:
    assert not refused(peer=AWAY, Host="auth-proxy.prod.svc.cluster.local:9090")


def test_a_unix_socket_has_no_peer_and_any_name_will_do() -> None:
    assert not refused(peer=None, Host="whatever.example")
    assert not refused(QUIT, peer=None, Host="whatever.example")


@pytest.mark.parametrize(
    ("peer", "is_refused"),
    [
        (LOCAL, False),
        ("127.9.9.9", False),
        ("::1", False),
        ("::ffff:127.0.0.1", False),
        (AWAY, True),
        ("::ffff:10.1.2.3", True),
        ("fe80::1%eth0", True),
        ("garbage", True),
    ],
)
def test_only_a_caller_on_this_machine_may_ask_to_quit(
    peer: str,
    is_refused: bool,  # noqa: FBT001 (a row of the table)
) -> None:
    assert refused(QUIT, peer=peer, Host="127.0.0.1:9090") is is_refused
    assert is_loopback(peer) is not is_refused
