from __future__ import annotations

from collections.abc import Mapping

import pytest

from proxy.config.loading import parse
from proxy.config.model import Address, Admin, Auth, Config, IdentityHeader
from proxy.config.overrides import NAMES, Override, gather
from proxy.config.problems import ConfigError

FILE = """\
listen: localhost:8081
admin: {listen: localhost:9090, quit: true}
log: {level: info, format: json, access: all}
workers: 3
routes:
  a: {upstream: 'https://a.example', audience: written, auth: auto}
"""
TWO = FILE + "  b: {upstream: 'https://b.example', path: /b}\n"


def read(
    flags: Mapping[str, str], env: Mapping[str, str] | None = None, text: str = FILE
) -> Config:
    return parse(text, source="f", env=env or {}, overrides=gather(flags, env or {}))


def told(
    flags: Mapping[str, str], env: Mapping[str, str] | None = None, text: str = FILE
) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        read(flags, env, text)
    return [str(problem) for problem in raised.value.problems]


def test_a_flag_comes_before_its_variable_and_that_before_the_file() -> None:
    env = {"AUTH_PROXY_WORKERS": "2"}

    assert read({}).workers == 3
    assert read({}, env).workers == 2
    assert read({"workers": "1"}, env).workers == 1


def test_every_flag_has_its_variable() -> None:
    env = {f"AUTH_PROXY_{name.upper()}": "x" for name in NAMES}

    assert gather({}, env) == {name: Override(f"AUTH_PROXY_{name.upper()}", "x") for name in NAMES}


def test_an_empty_variable_counts_as_unset() -> None:
    assert gather({}, {"AUTH_PROXY_LISTEN": ""}) == {}


def test_other_variables_with_the_prefix_are_left_alone() -> None:
    # Kubernetes sets these for a Service called "auth-proxy".
    assert (
        gather({}, {"AUTH_PROXY_PORT": "tcp://10.0.0.1:80", "AUTH_PROXY_SERVICE_HOST": "x"}) == {}
    )


def test_the_listen_flag_replaces_the_top_level_listener() -> None:
    assert read({"listen": ":7001"}).listeners == (Address("localhost", 7001),)


def test_the_listen_flag_may_hold_a_list() -> None:
    listeners = read({"listen": "7001, unix:/run/x"}).listeners
    assert listeners == (Address("localhost", 7001), Address(path="/run/x"))


def test_the_listen_flag_leaves_a_listener_of_a_route() -> None:
    text = FILE.replace("auth: auto", "listen: 8081")
    assert read({"listen": "7001"}, text=text).listeners == (Address("localhost", 8081),)


def test_the_admin_flag_keeps_what_else_the_file_says_of_admin() -> None:
    assert read({"admin": "7002"}).admin == Admin(listen=Address("localhost", 7002), quit=True)


def test_the_admin_flag_may_switch_it_off() -> None:
    assert read({"admin": "off"}).admin is None


def test_the_admin_flag_replaces_an_address() -> None:
    text = FILE.replace("{listen: localhost:9090, quit: true}", "off")
    assert read({"admin": "7002"}, text=text).admin == Admin(listen=Address("localhost", 7002))


def test_the_log_flags_keep_what_else_the_file_says_of_the_log() -> None:
    log = read({"log_level": "debug", "log_format": "text"}).log
    assert (log.level, log.format, log.access) == ("debug", "text", "all")


def test_the_log_flags_need_no_log_in_the_file() -> None:
    text = FILE.replace("log: {level: info, format: json, access: all}\n", "")
    log = read({"log_level": "error"}, text=text).log
    assert (log.level, log.access) == ("error", "errors")


def test_auth_and_header_apply_to_every_route() -> None:
    first, second = read({"auth": "none", "header": "Authorization"}, text=TWO).routes

    assert (first.auth, second.auth) == (Auth.NONE, Auth.NONE)
    assert (first.header, second.header) == (IdentityHeader.AUTHORIZATION,) * 2


def test_the_audience_flag_replaces_that_of_the_only_route() -> None:
    assert read({"audience": "flag"}).routes[0].first.audience == "flag"


def test_the_audience_flag_is_refused_where_several_services_would_share_it() -> None:
    assert told({"audience": "flag"}, text=TWO) == [
        "--audience: cannot be the audience of 2 routes; write audience under each route instead"
    ]


def test_a_dollar_in_a_flag_is_a_dollar() -> None:
    assert read({"audience": "a$b${C}"}).routes[0].first.audience == "a$b${C}"


def test_problems_are_told_with_the_flag_or_variable() -> None:
    lines = told(
        {"listen": "x", "workers": "many", "log_level": "loud", "auth": "maybe"},
        {"AUTH_PROXY_ADMIN": "y", "AUTH_PROXY_HEADER": "Cookie", "AUTH_PROXY_LOG_FORMAT": "xml"},
        TWO,
    )

    address = "is not an address; write localhost:8081, 8081, [::1]:8081 or unix:/run/proxy.sock"
    assert lines == [
        "--auth: 'maybe' is not one of auto, id_token, access_token, none",
        f"--listen: 'x' {address}",
        "--log-level: 'loud' is not one of debug, info, warning, error",
        "--workers: 'many' is not a whole number; write one such as 10",
        f"AUTH_PROXY_ADMIN: 'y' {address}",
        (
            "AUTH_PROXY_HEADER: 'Cookie' is not one of X-Serverless-Authorization, "
            "Authorization, Proxy-Authorization"
        ),
        "AUTH_PROXY_LOG_FORMAT: 'xml' is not one of auto, json, text",
    ]


def test_what_an_override_breaks_together_with_the_file_is_told_with_the_flag() -> None:
    text = "routes:\n  a: {upstream: 'http://app.internal'}\n"
    assert told({"auth": "id_token"}, text=text) == [
        (
            "--auth: an ID token is never sent over plain http to app.internal; "
            "write https://, or auth: none"
        )
    ]


def test_a_file_of_another_shape_is_told_as_it_would_be_without_overrides() -> None:
    flags = {"audience": "x", "admin": "7002", "log_level": "debug"}
    for text, said in (
        ("routes: [a]", "routes: must be a mapping of keys to values, not a list"),
        ("routes: {a: x}", "routes.a: must be a mapping of keys to values, not 'x'"),
        ("log: x\nroutes: {a: {service: b}}", "log: must be a mapping of keys to values, not 'x'"),
        ("workers: 1", "routes is missing; write routes: {NAME: {upstream: https://HOST}}"),
    ):
        (line,) = told(flags, text=text)
        assert line.split(": ", 1)[1] == said
