"""`egress_proxy`: what is read, what is refused, and that no credentials are ever shown."""

from __future__ import annotations

import base64
import json

import pytest

from proxy.config import egress, show
from proxy.config.loading import ConfigSource, from_url
from proxy.config.model import Route
from proxy.config.problems import ConfigError
from proxy.config.proxies import Egress, HttpProxy
from tests.unit.config.reading import UPSTREAM, one_route, read, refusal, route, told

SECRET = "hunter2"
URL = f"http://user:{SECRET}@proxy.example:3128"
PROXY = HttpProxy("proxy.example", 3128, "Basic " + base64.b64encode(b"user:hunter2").decode())


def proxy_of(route: Route) -> HttpProxy | None:
    return egress.proxy_of(route, route.first)


def basic(credentials: bytes) -> str:
    return "Basic " + base64.b64encode(credentials).decode()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (URL, PROXY),
        ("HTTP://Proxy.Example.:3128/", HttpProxy("proxy.example", 3128)),
        ("http://[2001:db8::1]:80", HttpProxy("2001:db8::1", 80)),
        ("proxy.example:3128", HttpProxy("proxy.example", 3128)),
        ("http://u@p:1", HttpProxy("p", 1, basic(b"u:"))),
        ("http://:w@p:1", HttpProxy("p", 1, basic(b":w"))),
        ("http://@p:1", HttpProxy("p", 1)),
        ("http://u%40x:a%3Ab%20@p:1", HttpProxy("p", 1, basic(b"u@x:a:b "))),
        ("http://u:a:b@c@p:1", HttpProxy("p", 1, basic(b"u:a:b@c"))),
        ("http://ü:ö@p:1", HttpProxy("p", 1, basic("ü:ö".encode()))),
    ],
)
def test_a_url_names_a_proxy(url: str, expected: HttpProxy) -> None:
    assert egress.http_proxy(url) == expected


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://user:hunter2@proxy.example", "has no port"),
        ("http://user:hunter2@:3128", "has no usable host"),
        ("http://user:hunter2@p:0", "has no usable host and port"),
        ("http://user:hunter2@p:65536", "has no usable host and port"),
        ("http://user:hunter2@hunter2_!:1", "has no usable host and port"),
        ("https://user:hunter2@p:1", "is not reached by http://"),
        ("socks5h://user:hunter2@p:1", "is not reached by http://"),
        ("http://user:hunter2@p:1/hunter2", "is not the URL of an HTTP proxy"),
        ("http://user:hunter2@p:1?hunter2", "is not the URL of an HTTP proxy"),
        ("http://us%3Aer:hunter2@p:1", "a colon"),
        ("http://user:hunter2%0D%0A@p:1", "a control character"),
        ("", "is not the URL of an HTTP proxy"),
    ],
)
def test_what_names_none_is_refused_and_not_shown(url: str, why: str) -> None:
    said = refusal(egress.http_proxy, url)

    assert why in said
    assert SECRET not in said


def test_the_key_takes_a_url_a_word_and_no_secret_is_shown() -> None:
    text = one_route(f"egress_proxy: '{URL}'")
    config = read(text)

    assert config.routes[0].egress_proxy == Egress(PROXY, PROXY)
    shown = [repr(config), show.table(config), json.dumps(show.routes_as_json(config))]
    assert all("proxy.example" in each for each in shown)
    assert not any(SECRET in each or PROXY.authorization[6:] in each for each in shown)
    assert route("egress_proxy: off", {"HTTPS_PROXY": URL}).egress_proxy == Egress()


@pytest.mark.parametrize("written", ["https://user:hunter2@p:1", "hunter2", "[hunter2]", "3128"])
def test_a_value_that_is_none_is_refused_with_its_place(written: str) -> None:
    (said,) = told(one_route(f"egress_proxy: {written}"))

    assert said.startswith("f:2:")
    assert "egress_proxy" in said
    assert SECRET not in said


@pytest.mark.parametrize("keys", ["", "egress_proxy: auto"])
def test_the_environment_is_the_default(keys: str) -> None:
    found = route(keys, {"HTTPS_PROXY": URL, "NO_PROXY": "a.example"})

    assert found.egress_proxy.auto
    assert str(proxy_of(found)) == "http://proxy.example:3128"
    assert proxy_of(route(keys, {"HTTPS_PROXY": URL, "NO_PROXY": "example.com"})) is None
    assert proxy_of(route(keys, {"HTTP_PROXY": URL})) is None


def test_a_url_on_the_command_line_has_the_environments_proxy_too() -> None:
    config = ConfigSource(url=UPSTREAM).read({"HTTPS_PROXY": URL}, {})

    assert str(proxy_of(config.routes[0])) == "http://proxy.example:3128"
    assert proxy_of(from_url(UPSTREAM).routes[0]) is None


def test_the_environments_proxy_needs_no_port_as_with_curl() -> None:
    found = proxy_of(route(env={"HTTPS_PROXY": "proxy.example"}))

    assert found is not None
    assert found.port == 1080


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "app.localhost",
        "127.0.0.1",
        "127.9.9.9",
        "::1",
        "::ffff:127.0.0.1",
        "169.254.169.254",
        "fe80::1",
        "fd00:ec2::254",
        "metadata.google.internal",
        "metadata",
    ],
)
def test_this_machine_and_the_metadata_server_are_never_asked_for_through_a_proxy(
    host: str,
) -> None:
    assert egress.proxy_for(Egress(PROXY, PROXY), "https", host) is None


@pytest.mark.parametrize("host", ["localhost.example", "10.0.0.1", "fd00::1", "google.internal"])
def test_all_others_are(host: str) -> None:
    assert egress.proxy_for(Egress(PROXY, PROXY), "https", host) is PROXY


def test_a_variable_that_cannot_be_used_is_refused_where_it_would_be() -> None:
    env = {"ALL_PROXY": "socks5://user:hunter2@p:1"}
    (said,) = told(one_route(), env)

    assert "ALL_PROXY names a proxy that is not reached by http://" in said
    assert "egress_proxy: off" in said
    assert SECRET not in said
    assert told(one_route("egress_proxy: off"), env) == []
    assert told(one_route(f"egress_proxy: '{URL}'"), env) == []
    assert told(one_route("upstream: 'http://127.0.0.1:1'"), env) == []
    assert told(one_route(), {**env, "NO_PROXY": "example.com"}) == []
    with pytest.raises(ConfigError, match="ALL_PROXY names a proxy"):
        from_url(UPSTREAM, env)


@pytest.mark.parametrize(
    ("top", "keys", "env"),
    [
        ("listen: 8081", "egress_proxy: 'http://127.0.0.1:8081'", {}),
        ("listen: 8081", "egress_proxy: 'http://localhost:8081'", {}),
        ("listen: 0.0.0.0:8081", "egress_proxy: 'http://127.0.0.1:8081'", {}),
        ("admin: 9090", "egress_proxy: 'http://localhost:9090'", {}),
        ("listen: 8081", "", {"HTTPS_PROXY": "http://user:hunter2@127.0.0.1:8081"}),
        ("", "listen: 8083", {"HTTPS_PROXY": "http://[::1]:8083"}),
    ],
)
def test_a_listener_of_our_own_is_no_egress_proxy(top: str, keys: str, env: dict[str, str]) -> None:
    (said,) = told(one_route(keys, top), env)

    assert "is a listener of this proxy" in said
    assert SECRET not in said
    assert ("HTTPS_PROXY names" in said) == bool(env)


def test_another_port_is_none_of_ours() -> None:
    assert told(one_route("egress_proxy: 'http://127.0.0.1:8082'", "listen: 8081")) == []
    off = one_route("egress_proxy: 'http://localhost:9090'", "admin: off")
    assert told(off) == []


def test_the_table_and_programs_are_told_the_way() -> None:
    config = read(one_route(), {"HTTPS_PROXY": URL})

    assert f"{UPSTREAM} through http://proxy.example:3128 " in show.table(config)
    assert show.routes_as_json(config)["routes"][0]["egress_proxy"] == "http://proxy.example:3128"
    direct = read(one_route())
    assert "through" not in show.table(direct)
    assert show.routes_as_json(direct)["routes"][0]["egress_proxy"] is None


def test_each_destination_has_its_own_way() -> None:
    text = one_route("upstream: ['https://a.example', 'https://b.example']")
    env = {"HTTPS_PROXY": URL, "NO_PROXY": "b.example"}
    shown = show.routes_as_json(read(text, env))["routes"][0]["destinations"]

    assert [each["egress_proxy"] for each in shown] == ["http://proxy.example:3128", None]
    assert "https://a.example through http://proxy" in show.table(read(text, env))
    (said,) = told(text, {"HTTPS_PROXY": "socks5://p:1", "NO_PROXY": "a.example"})
    assert "HTTPS_PROXY names a proxy" in said
