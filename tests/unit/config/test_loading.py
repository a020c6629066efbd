from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path

import pytest

from proxy.config import loading
from proxy.config.loading import ConfigSource, find, from_url, load, parse
from proxy.config.model import (
    OFF,
    Address,
    Admin,
    Auth,
    AutoCredentials,
    ErrorFormat,
    GcloudCredentials,
    IdentityHeader,
    Impersonate,
    Limits,
    Log,
    MetadataCredentials,
    Protocol,
    Retries,
    Service,
    Timeouts,
    Upstream,
)
from proxy.config.problems import ConfigError, ConfigUnreadable
from tests.unit.config.reading import block_route, one_route, read, route, told, told_of_route

EXAMPLE = """\
listen: localhost:8081
admin: localhost:9090
defaults:
  timeouts: {connect: 5s}
routes:
  orders:
    path: /orders
    strip_path: true
    upstream: https://orders-abc123-uc.a.run.app
  billing:
    host: [billing.internal, "*.billing.internal"]
    service: billing
    audience: https://billing.example.com
  search:
    listen: localhost:8082
    upstream: ${SEARCH_URL:-http://127.0.0.1:3001}
"""


def test_a_whole_document_is_read_and_resolved() -> None:
    orders, billing, search = read(EXAMPLE).routes

    assert orders.path == "/orders"
    assert orders.strip_path
    assert orders.first.upstream == Upstream("https", "orders-abc123-uc.a.run.app", 443)
    assert orders.first.audience == "https://orders-abc123-uc.a.run.app"
    assert orders.timeouts == Timeouts(connect=5.0)
    assert orders.listen == (Address("localhost", 8081),)
    assert not orders.own_listener
    assert billing.host == ("billing.internal", "*.billing.internal")
    assert billing.first.service == Service("billing")
    assert billing.first.upstream is None
    assert billing.first.audience == "https://billing.example.com"
    assert search.listen == (Address("localhost", 8082),)
    assert search.own_listener
    assert search.auth is Auth.NONE
    assert search.first.audience is None


def test_what_is_not_written_has_the_contracts_defaults() -> None:
    config = read(one_route())
    only = config.routes[0]

    assert config.admin == Admin(listen=Address("localhost", 9090), quit=False)
    assert config.log == Log(level="info", format="auto", access="errors")
    assert (config.drain, config.sigterm_delay, config.workers) == (8.0, 0.0, 1)
    assert only.listen == (Address("localhost", 8081),)
    assert (only.host, only.path, only.strip_path) == ((), "/", False)
    assert only.auth is Auth.ID_TOKEN
    assert only.header is IdentityHeader.SERVERLESS
    assert only.credentials == AutoCredentials()
    assert only.protocol is Protocol.AUTO
    assert only.timeouts == Timeouts(connect=10.0, response=300.0, idle=300.0, total=OFF)
    assert only.retries == Retries(
        attempts=1,
        on=("connect_failed", "reset", 429, 503),
        methods=("GET", "HEAD", "OPTIONS", "PUT", "DELETE"),
        budget=0.2,
        backoff=0.05,
        max_body=65536,
    )
    assert only.limits == Limits(
        connections=1000, in_flight=0, queue=0, header_bytes=65536, body_bytes=0
    )
    assert only.errors is ErrorFormat.AUTO
    assert only.allow_hosts == ()
    assert (only.allow_origins, only.set_headers, only.remove_headers) == ((), (), ())
    assert only.ca_file is None


def test_every_top_level_key_is_read() -> None:
    config = read(
        one_route(
            top="listen: [8081, 'unix:/run/x']\nadmin: {listen: 9091, quit: true}\n"
            "log: {level: debug, format: json, access: off}\n"
            "drain: 3s\nsigterm_delay: 500ms\nworkers: 2"
        )
    )

    assert config.listeners == (Address("localhost", 8081), Address(path="/run/x"))
    assert config.admin == Admin(listen=Address("localhost", 9091), quit=True)
    assert config.log == Log(level="debug", format="json", access="off")
    assert (config.drain, config.sigterm_delay, config.workers) == (3.0, 0.5, 2)


def test_every_key_of_a_route_is_read() -> None:
    only = route(
        "listen: 8081, host: A.internal, path: /a/, strip_path: true, audience: me, "
        "auth: id_token, header: authorization, credentials: gcloud, protocol: h2, "
        "timeouts: {connect: 1s, response: 2s, idle: 3s, total: 4s}, "
        "retries: {attempts: 3, on: [timeout, 500], methods: [POST], budget: 5%, backoff: 0s, "
        "max_body: 1MiB}, limits: {connections: 1, in_flight: 2, queue: 3, header_bytes: 4KiB, "
        "body_bytes: 5}, errors: trpc, allow_origins: ['https://a.example', null], "
        "set_headers: {X-A: b}, remove_headers: [Cookie]"
    )

    assert only.listen == (Address("localhost", 8081),)
    assert (only.host, only.path, only.strip_path) == (("a.internal",), "/a", True)
    assert (only.first.audience, only.auth) == ("me", Auth.ID_TOKEN)
    assert only.header is IdentityHeader.AUTHORIZATION
    assert only.credentials == GcloudCredentials()
    assert only.protocol is Protocol.H2
    assert only.timeouts == Timeouts(connect=1.0, response=2.0, idle=3.0, total=4.0)
    assert only.retries == Retries(
        attempts=3,
        on=("timeout", 500),
        methods=("POST",),
        budget=0.05,
        backoff=0.0,
        max_body=1 << 20,
    )
    assert only.limits == Limits(
        connections=1, in_flight=2, queue=3, header_bytes=4096, body_bytes=5
    )
    assert only.errors is ErrorFormat.TRPC
    assert only.allow_origins == ("https://a.example", "null")
    assert only.set_headers == (("X-A", "b"),)
    assert only.remove_headers == ("Cookie",)


def test_admin_may_be_off() -> None:
    assert read(one_route(top="admin: off")).admin is None
    assert read(one_route(top="admin: 'off'")).admin is None


def test_admin_as_a_mapping_keeps_the_default_address() -> None:
    assert read(one_route(top="admin: {quit: true}")).admin == Admin(quit=True)


# Problems

AN_ADDRESS = "write localhost:8081, 8081, [::1]:8081 or unix:/run/proxy.sock"


def test_all_problems_are_told_at_once_in_the_order_of_the_file() -> None:
    lines = told(
        "lisen: 8080\nworkers: many\nroutes:\n  a:\n    upstream: ftp://x\n    pth: /x\n"
        "    timeouts: {connect: 5}\n    timeouts: {}\n"
    )

    assert lines == [
        "f:1:1: unknown key 'lisen'; did you mean 'listen'?",
        "f:2:10: workers: 'many' is not a whole number; write one such as 10",
        "f:5:15: routes.a.upstream: 'ftp' cannot be called; write https:// or http://",
        "f:6:5: routes.a: unknown key 'pth'; did you mean 'path'?",
        "f:7:25: routes.a.timeouts.connect: 5 is a number without its unit; write 5s",
        "f:8:5: duplicate key 'timeouts'; the first one is at f:7:5",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("x", "f:1:1: must be a mapping of keys to values, not 'x'"),
        ("[a]", "f:1:1: must be a mapping of keys to values, not a list"),
        ("workers: 1", "f:1:1: routes is missing; write routes: {NAME: {upstream: https://HOST}}"),
        ("routes:", "f:1:8: routes: has no keys; give it some, or remove it"),
        ("routes: {}", "f:1:9: routes: needs at least one route; write NAME: {...}"),
        ("routes: [a]", "f:1:9: routes: must be a mapping of keys to values, not a list"),
        ("routes: x", "f:1:9: routes: must be a mapping of keys to values, not 'x'"),
        ("routes: {a: }", "f:1:13: routes.a: has no keys; give it some, or remove it"),
        ("routes: {a: x}", "f:1:13: routes.a: must be a mapping of keys to values, not 'x'"),
    ],
)
def test_a_document_of_another_shape_is_refused(text: str, line: str) -> None:
    assert told(text) == [line]


@pytest.mark.parametrize("name", ["a", "Orders_2.x-y", "a" * 63, "1", "true"])
def test_a_route_may_be_named(name: str) -> None:
    assert read(f"routes: {{{name}: {{upstream: https://a.example}}}}").routes[0].name == name


@pytest.mark.parametrize("name", ["a b", "é", "a" * 64, "a/b", "''"])
def test_a_name_that_is_no_label_is_refused(name: str) -> None:
    (line,) = told(f"routes: {{{name}: {{upstream: https://a.example}}}}")
    assert line.endswith("is not a route's name; write letters, digits, _ . or -")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (one_route("lissten: 1"), "routes.a: unknown key 'lissten'; did you mean 'listen'?"),
        (
            one_route("stripPath: true"),
            "routes.a: unknown key 'stripPath'; did you mean 'strip_path'?",
        ),
        (
            one_route("strip-path: true"),
            "routes.a: unknown key 'strip-path'; did you mean 'strip_path'?",
        ),
        (one_route("connect: 5s"), "routes.a: unknown key 'connect'; it belongs under timeouts"),
        (one_route("attempts: 5"), "routes.a: unknown key 'attempts'; it belongs under retries"),
        (one_route("queue: 5"), "routes.a: unknown key 'queue'; it belongs under limits"),
        (
            one_route("workers: 5"),
            "routes.a: unknown key 'workers'; it belongs to the top level of the document",
        ),
        (
            one_route(top="timeouts: {}"),
            "unknown key 'timeouts'; it belongs to a route, or to defaults",
        ),
        (
            one_route(top="upstream: x"),
            "unknown key 'upstream'; it belongs to a route, under routes.NAME",
        ),
        (
            one_route(top="defaults: {path: /}"),
            "defaults: unknown key 'path'; it belongs to each route and has no default",
        ),
        (
            one_route("timeouts: {zzz: 1s}"),
            (
                "routes.a.timeouts: unknown key 'zzz'; "
                "the keys here are connect, response, idle, total"
            ),
        ),
        (
            one_route(top="log: {lvl: info}"),
            "log: unknown key 'lvl'; did you mean 'level'?",
        ),
        (
            one_route(top="admin: {quitt: true}"),
            "admin: unknown key 'quitt'; did you mean 'quit'?",
        ),
    ],
)
def test_an_unknown_key_is_told_with_what_was_meant(text: str, message: str) -> None:
    assert [line.split(": ", 1)[1] for line in told(text)] == [message]


@pytest.mark.parametrize("key", ["listen", "host", "path", "strip_path", "upstream", "service"])
def test_no_default_stands_for_what_a_route_matches_or_calls(key: str) -> None:
    (line,) = told(one_route(top=f"defaults: {{{key}: x}}"))
    assert line.endswith(f"unknown key '{key}'; it belongs to each route and has no default")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("path:", "routes.a.path: has no value; write a path such as /orders, or remove the key"),
        ("path: [/a]", "routes.a.path: must be a path such as /orders, not a list"),
        ("path: {a: b}", "routes.a.path: must be a path such as /orders, not a mapping"),
        ("audience: 12", "routes.a.audience: 12 is a number in YAML; write it in quotes: '12'"),
        (
            "audience: true",
            "routes.a.audience: true is a boolean in YAML; write it in quotes: 'true'",
        ),
        ("audience: null", "routes.a.audience: null is a null in YAML; write it in quotes: 'null'"),
        ("host: {a: b}", "routes.a.host: must be a host or a list of them"),
        ("host: []", "routes.a.host: an empty list matches nothing; remove the key"),
        ("listen: []", "routes.a.listen: an empty list matches nothing; remove the key"),
        ("host: [a, [b]]", "routes.a.host[1]: must be a host, not a list"),
        ("host: [a, A.]", "routes.a.host[1]: 'a' stands in the list twice; remove one"),
        (
            "listen: [8081, ':8081']",
            "routes.a.listen[1]: 'localhost:8081' stands in the list twice; remove one",
        ),
        ("strip_path: yes", "routes.a.strip_path: 'yes' is not true or false; write true or false"),
        (
            "strip_path: 'true'",
            "routes.a.strip_path: 'true' is not true or false; write without quotes",
        ),
        ("timeouts: 5s", "routes.a.timeouts: must be a mapping of keys to values, not '5s'"),
        ("timeouts:", "routes.a.timeouts: has no keys; give it some, or remove it"),
        (
            "timeouts: {connect: 0s}",
            "routes.a.timeouts.connect: 0s would fail every exchange; write off for no deadline",
        ),
        ("retries: {attempts: 0}", "routes.a.retries.attempts: 0 is too few; write 1 or more"),
        ("retries: {attempts: -1}", "routes.a.retries.attempts: -1 is too few; write 1 or more"),
        (
            "retries: {attempts: 1.5}",
            "routes.a.retries.attempts: '1.5' is not a whole number; write one such as 10",
        ),
        (
            "retries: {attempts: '2'}",
            "routes.a.retries.attempts: '2' is a text; write the number without quotes",
        ),
        ("retries: {methods: GET}", "routes.a.retries.methods: must be a list of methods"),
        (
            "retries: {on: 503}",
            "routes.a.retries.on: must be a list of failure classes and statuses",
        ),
        ("limits: {queue: -1}", "routes.a.limits.queue: -1 is too few; write 0 or more"),
        (
            "protocol: http2",
            "routes.a.protocol: 'http2' is not one of auto, h1, h2",
        ),
        (
            "auth: no",
            (
                "routes.a.auth: 'no' is not one of auto, id_token, access_token, none; "
                "did you mean 'none'?"
            ),
        ),
        (
            "allow_origins: [~]",
            (
                "routes.a.allow_origins[0]: '~' is not an origin; write https://HOST or "
                "http://HOST:PORT, without a path or final /"
            ),
        ),
        (
            "set_headers: [X]",
            "routes.a.set_headers: must be a mapping of keys to values, not a list",
        ),
        (
            "set_headers: {X-A: 1}",
            "routes.a.set_headers.X-A: 1 is a number in YAML; write it in quotes: '1'",
        ),
        (
            "set_headers: {X-A: }",
            "routes.a.set_headers.X-A: has no value; write a header value, or remove the key",
        ),
        (
            "set_headers: {X A: b}",
            "routes.a.set_headers: 'X A' is not a header name; write letters, digits and '-'",
        ),
        (
            "set_headers: {Host: b}",
            "routes.a.set_headers: Host belongs to the proxy's own connection; leave it out",
        ),
        (
            "set_headers: {X-A: b, x_a: c}",
            "routes.a.set_headers: x_a is another spelling of the header at f:2:66; remove one",
        ),
        ("remove_headers: Cookie", "routes.a.remove_headers: must be a list of header names"),
        (
            "remove_headers: [TE]",
            "routes.a.remove_headers[0]: TE belongs to the proxy's own connection; leave it out",
        ),
        (
            "audience: '${NONE}'",
            (
                "routes.a.audience: the environment variable NONE is not set; "
                "set it, or give a default: ${NONE:-value}"
            ),
        ),
    ],
)
def test_a_wrong_value_is_told_with_its_key_and_its_mend(keys: str, message: str) -> None:
    assert told_of_route(keys) == [message]


@pytest.mark.parametrize(
    ("top", "message"),
    [
        (
            "listen: [8080, x]",
            f"listen[1]: 'x' is not an address; {AN_ADDRESS}",
        ),
        (
            "admin: [9090]",
            (
                "admin: must be off, an address such as localhost:9090, "
                "or a mapping of listen, quit, not a list"
            ),
        ),
        (
            "admin: false",
            f"admin: 'false' is not an address; {AN_ADDRESS}",
        ),
        ("workers: 0", "workers: 0 is too few; write 1 or more"),
        ("workers: 257", "workers: 257 is too many; write 256 at most"),
        ("workers: 999999999", "workers: 999999999 is too many; write 256 at most"),
        ("log: {format: xml}", "log.format: 'xml' is not one of auto, json, text"),
        ("drain: 8", "drain: 8 is a number without its unit; write 8s"),
        (
            "sigterm_delay: off",
            "sigterm_delay: off would be a pause without end; write 0s for none",
        ),
        ("defaults:", "defaults: has no keys; give it some, or remove it"),
        (
            "defaults: {limits: {queue: x}}",
            "defaults.limits.queue: 'x' is not a whole number; write one such as 10",
        ),
    ],
)
def test_a_wrong_value_at_the_top_is_told_once(top: str, message: str) -> None:
    assert [line.split(": ", 1)[1] for line in told(one_route(top=top))] == [message]


# Variables


def test_an_expanded_word_without_quotes_is_typed_as_if_it_stood_there() -> None:
    env = {"N": "3", "YES": "true", "PORT": "8081", "OFF": "off"}
    text = block_route(
        "listen: ${PORT}\nstrip_path: ${YES}\ntimeouts:\n  total: ${OFF}\n"
        "retries:\n  attempts: ${N}\n  on:\n    - 50${N}\nlimits:\n  body_bytes: ${N}KiB\n"
    )

    only = read(text, env).routes[0]

    assert only.listen == (Address("localhost", 8081),)
    assert only.strip_path
    assert (only.retries.attempts, only.retries.on) == (3, (503,))
    assert only.timeouts.total == math.inf
    assert only.limits.body_bytes == 3072


def test_an_expanded_word_in_quotes_is_typed_too() -> None:
    # Inside { } and [ ] a value with ${...} has to stand in quotes.
    env = {"N": "3", "YES": "true", "PORT": "8081"}
    only = route(
        "listen: ['${PORT}'], strip_path: '${YES}', retries: {attempts: '${N}'}, "
        "limits: {queue: '${M:-7}'}, set_headers: {X-A: '${N}', X-B: '${YES}'}, audience: '${N}'",
        env,
    )

    assert only.listen == (Address("localhost", 8081),)
    assert only.strip_path
    assert (only.retries.attempts, only.limits.queue) == (3, 7)
    assert (only.set_headers, only.first.audience) == ((("X-A", "3"), ("X-B", "true")), "3")


def test_an_expanded_word_in_quotes_is_no_number_if_it_looks_like_none() -> None:
    told_so = told_of_route("retries: {attempts: '${N}'}, strip_path: '$$true'", {"N": "x3"})
    assert told_so == [
        "routes.a.retries.attempts: 'x3' is not a whole number; write one such as 10",
        "routes.a.strip_path: '$true' is not true or false; write true or false",
    ]


def test_a_text_may_come_from_a_variable_that_looks_like_a_number() -> None:
    assert read(block_route("audience: ${N}"), {"N": "3"}).routes[0].first.audience == "3"


def test_an_empty_variable_is_no_value_unless_quoted() -> None:
    (line,) = told(block_route("audience: ${N}"), {"N": ""})
    assert line == "f:4:15: routes.a.audience: has no value; write a text, or remove the key"
    assert route("set_headers: {X-A: '${N}'}", {"N": ""}).set_headers == (("X-A", ""),)


def test_keys_are_never_expanded() -> None:
    (line,) = told(block_route("${N}: 1"), {"N": "path"})
    assert line.startswith("f:4:5: routes.a: unknown key '${N}'")


# Defaults


def test_mappings_in_defaults_are_merged_key_by_key() -> None:
    only = route(
        "timeouts: {connect: 1s}, set_headers: {x-b: route, X-C: route}",
        top="defaults: {timeouts: {connect: 2s, idle: 3s}, "
        "set_headers: {X-A: default, X-B: default}, protocol: h1}",
    )

    assert only.timeouts == Timeouts(connect=1.0, idle=3.0)
    assert only.set_headers == (("X-A", "default"), ("x-b", "route"), ("X-C", "route"))
    assert only.protocol is Protocol.H1


def test_lists_and_credentials_in_defaults_are_replaced_whole(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("x")
    only = read(
        one_route(
            "remove_headers: [Y], credentials: {token_file: token}",
            top="defaults: {remove_headers: [X], credentials: {impersonate: a@b.c}}",
        ),
        directory=tmp_path,
    ).routes[0]

    assert only.remove_headers == ("Y",)
    assert "token" in str(only.credentials)


def test_a_mistake_in_defaults_is_told_once_however_many_routes_there_are() -> None:
    lines = told(
        "defaults: {protocol: h3, timeouts: {idel: 1s}}\nroutes:\n"
        "  a: {upstream: 'https://a.example'}\n  b: {upstream: 'https://b.example', path: /b}\n"
    )

    assert lines == [
        "f:1:22: defaults.protocol: 'h3' is not one of auto, h1, h2",
        "f:1:37: defaults.timeouts: unknown key 'idel'; did you mean 'idle'?",
    ]


def test_an_audience_may_be_a_default_for_all() -> None:
    assert route(top="defaults: {audience: all}").first.audience == "all"


# Credentials


@pytest.mark.parametrize(
    ("text", "credentials"),
    [
        ("auto", AutoCredentials()),
        ("metadata", MetadataCredentials()),
        ("gcloud", GcloudCredentials()),
        ("{impersonate: a@b.c}", Impersonate("a@b.c")),
        (
            "{impersonate: a@b.c, delegates: [d@e.f, g@h.i], source: gcloud}",
            Impersonate("a@b.c", ("d@e.f", "g@h.i"), GcloudCredentials()),
        ),
    ],
)
def test_credentials_are_a_word_or_an_impersonation(text: str, credentials: object) -> None:
    assert route(f"credentials: {text}").credentials == credentials


def test_credentials_may_be_files_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "key.json").write_text("{}")
    text = (
        "routes:\n"
        "  a: {upstream: 'https://a.example', credentials: {service_account_file: key.json}}\n"
        "  b: {upstream: 'https://a.example', path: /b, credentials: "
        "{impersonate: a@b.c, source: {service_account_file: key.json}}}\n"
    )

    first, second = (route.credentials for route in read(text, directory=tmp_path).routes)

    assert str(tmp_path / "key.json") in str(first)
    assert isinstance(second, Impersonate)
    assert second.source == first


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("google", ": 'google' is not one of auto, metadata, gcloud"),
        (
            "[auto]",
            (
                ": must be one of auto, metadata, gcloud, or a mapping of service_account_file, "
                "impersonate, delegates, source, token_file, not a list"
            ),
        ),
        ("{}", ": write exactly one of service_account_file, impersonate, token_file"),
        (
            "{delegates: [a@b.c]}",
            ": write exactly one of service_account_file, impersonate, token_file",
        ),
        ("{impersonate: a@b.c, token_file: /dev/null/x}", None),
        (
            "{impersonate: a}",
            (
                ".impersonate: 'a' is not a service account; "
                "write NAME@PROJECT.iam.gserviceaccount.com"
            ),
        ),
        (
            "{impersonate: a@b.c, source: {token_file: x}}",
            ".source: unknown key 'token_file'; an ID token cannot be used to impersonate",
        ),
        (
            "{impersonate: a@b.c, source: {impersonate: d@e.f}}",
            ".source: unknown key 'impersonate'; list the accounts in between as delegates",
        ),
        ("{impersonat: a@b.c}", ": unknown key 'impersonat'; did you mean 'impersonate'?"),
    ],
)
def test_credentials_that_name_no_kind_or_two_are_refused(text: str, message: str | None) -> None:
    lines = told_of_route(f"credentials: {text}")
    exactly = ": write exactly one of service_account_file, impersonate, token_file"
    assert f"routes.a.credentials{message or exactly}" in lines


def test_delegates_go_with_impersonation_only(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("x")
    keys = "credentials: {token_file: t, delegates: [a@b.c]}"
    assert told_of_route(keys, directory=tmp_path) == [
        "routes.a.credentials.delegates: goes with impersonate only; remove it"
    ]


# Files and URLs


def test_a_file_is_read_and_named_in_messages(tmp_path: Path) -> None:
    path = tmp_path / "proxy.yaml"
    path.write_text("\ufeff" + EXAMPLE, encoding="utf-8")

    config = load(path, {})

    assert config.source == str(path)
    assert len(config.routes) == 3


ENCODINGS = ["utf-8", "utf-8-sig", "utf-16"]
"""The last two are what Windows' editors and PowerShell write."""


@pytest.mark.parametrize("encoding", [*ENCODINGS, "utf-16-be"])
def test_a_file_may_have_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "proxy.yaml"
    text = "\ufeff" + EXAMPLE if encoding == "utf-16-be" else EXAMPLE
    path.write_text(text, encoding=encoding)

    assert load(path, {}) == parse(EXAMPLE, source=str(path), env={}, directory=tmp_path)


def test_half_a_character_of_utf_16_is_told(tmp_path: Path) -> None:
    path = tmp_path / "proxy.yaml"
    path.write_bytes(EXAMPLE.encode("utf-16") + b"a")

    with pytest.raises(ConfigError) as raised:
        load(path, {})
    assert str(raised.value) == f"{path}:1:1: is no whole UTF-16; save it as UTF-8"


def test_a_missing_file_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(ConfigUnreadable) as raised:
        load(tmp_path / "none.yaml", {})

    assert str(raised.value) == f"{tmp_path}/none.yaml: cannot be read: No such file or directory"


def test_a_folder_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(ConfigUnreadable) as raised:
        load(tmp_path, {})

    assert str(raised.value) == f"{tmp_path}: cannot be read: Is a directory"


def test_a_file_may_be_as_large_as_the_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "proxy.yaml"
    path.write_text(EXAMPLE)
    monkeypatch.setattr(loading, "_LARGEST", len(EXAMPLE))
    assert load(path, {}).routes
    monkeypatch.setattr(loading, "_LARGEST", len(EXAMPLE) - 1)
    with pytest.raises(ConfigUnreadable, match="larger than"):
        load(path, {})


def test_a_pipe_may_bring_as_much_as_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "piped"
    path.write_text(EXAMPLE)

    def find_piped() -> ConfigSource:
        with path.open("rb") as file:
            kept = os.dup(0)
            os.dup2(file.fileno(), 0)
            try:
                return find(None, "-", {})
            finally:
                os.dup2(kept, 0)
                os.close(kept)

    monkeypatch.setattr(loading, "_LARGEST", len(EXAMPLE))
    assert find_piped() == ConfigSource(piped=EXAMPLE.encode())
    monkeypatch.setattr(loading, "_LARGEST", len(EXAMPLE) - 1)
    with pytest.raises(ConfigUnreadable, match="larger than"):
        find_piped()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_bytes_that_are_not_utf_8_have_a_place(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "proxy.yaml"
    path.write_bytes("a: é\nb: é".encode(encoding) + b"\xff\n")

    with pytest.raises(ConfigError) as raised:
        load(path, {})

    assert str(raised.value) == f"{path}:2:5: byte 0xff is not UTF-8; save the file as UTF-8"


def test_a_url_alone_is_one_route_with_all_defaults() -> None:
    config = from_url("https://orders.example.com")
    written = parse(
        "routes: {default: {upstream: 'https://orders.example.com'}}", source=config.source, env={}
    )

    assert config == written


def test_a_url_takes_overrides_by_name() -> None:
    config = from_url("http://127.0.0.1:3001", listen="127.0.0.1:0", admin="off", workers="2")

    assert config.listeners == (Address("127.0.0.1", 0),)
    assert (config.admin, config.workers) == (None, 2)


def test_a_wrong_url_is_told_without_a_place() -> None:
    with pytest.raises(ConfigError) as raised:
        from_url("ftp://x", header="cookie")

    assert str(raised.value).split("\n") == [
        (
            "--header: 'cookie' is not one of X-Serverless-Authorization, Authorization, "
            "Proxy-Authorization"
        ),
        "URL: 'ftp' cannot be called; write https:// or http://",
    ]


def test_a_configuration_is_hashable_data() -> None:
    config = read(EXAMPLE)

    assert hash(config) == hash(dataclasses.replace(config))


@pytest.mark.parametrize(
    ("written", "read_as"),
    [
        ("any", ("any",)),
        ("Host.Docker.Internal", ("host.docker.internal",)),
        ("['*.ngrok.app', a.example]", ("*.ngrok.app", "a.example")),
        ("[]", ()),
    ],
)
def test_hosts_that_a_route_allows_are_read_as_its_own_are(
    written: str, read_as: tuple[str, ...]
) -> None:
    assert route(f"allow_hosts: {written}").allow_hosts == read_as
