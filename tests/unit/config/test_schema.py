"""The schema refuses nothing that the parser accepts, and the parser all that the schema does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from proxy.config.keys import DEFAULTS, ROUTE, TOP
from proxy.config.schema import schema
from tests.unit.config.reading import block_route, one_route, told

CONFIG = Path(__file__).parents[3] / "config"
EXAMPLES = sorted((CONFIG / "examples").glob("*.yaml"))


class Yaml12(yaml.SafeLoader):
    """YAML 1.2's core schema, as editors read by: ``off`` and ``on`` are words."""


Yaml12.yaml_implicit_resolvers = {}
for _tag, _regex, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)", list("-+.0123456789")),
    ("merge", r"<<", ["<"]),
):
    Yaml12.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_regex})$"), _first)


def load(text: str) -> Any:
    return yaml.load(text, Loader=Yaml12)  # noqa: S506 (a SafeLoader)


@cache
def validator() -> Draft202012Validator:
    return Draft202012Validator(schema())


def accepted(text: str) -> bool:
    return validator().is_valid(load(text))


def test_the_schema_is_a_valid_schema() -> None:
    Draft202012Validator.check_schema(schema())

    assert schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_the_file_beside_the_examples_is_the_schema() -> None:
    # Mended by: cloud-run-auth-proxy schema > config/schema.json
    assert (CONFIG / "schema.json").read_text() == json.dumps(schema(), indent=2) + "\n"


@pytest.mark.parametrize("path", [CONFIG / "proxy.yaml", *EXAMPLES], ids=lambda path: path.name)
def test_the_examples_fit_the_schema_that_their_first_line_names(path: Path) -> None:
    text = path.read_text()
    named = re.match(r"# yaml-language-server: \$schema=(\S+)\n", text)

    assert named is not None
    assert (path.parent / named[1]).resolve() == CONFIG / "schema.json"
    assert list(validator().iter_errors(load(text))) == []


def subschemas(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for each in value.values():
            yield from subschemas(each)
    elif isinstance(value, list):
        for each in value:
            yield from subschemas(each)


def test_every_key_is_described_and_no_object_takes_other_keys() -> None:
    for each in subschemas(schema()):
        if isinstance(each.get("properties"), dict):
            assert each["additionalProperties"] is False
            for name, key in each["properties"].items():
                assert "description" in key or "$ref" in key, name


def test_every_default_fits_its_own_key() -> None:
    defaults = [each for each in subschemas(schema()) if "default" in each]

    assert len(defaults) > 20
    for each in defaults:
        assert Draft202012Validator({**each, "$defs": schema()["$defs"]}).is_valid(each["default"])


def test_every_default_is_what_the_parser_assumes() -> None:
    for section, prefix in ((TOP, ""), (DEFAULTS, "defaults")):
        for key in section.keys:
            if isinstance(key.default, (str, int, bool, list, dict)):
                line = f"{key.name}: {json.dumps(key.default)}"
                top = f"{prefix}: {{{line}}}" if prefix else line
                assert told(one_route(top=top)) == [], key.name


def test_the_schema_knows_every_key_of_the_parser() -> None:
    assert list(schema()["properties"]) == [key.name for key in TOP.keys]
    assert list(schema()["$defs"]["route"]["properties"]) == [key.name for key in ROUTE.keys]
    assert list(schema()["properties"]["defaults"]["properties"]) == [
        key.name for key in DEFAULTS.keys
    ]


GOOD = [
    one_route(),
    one_route("listen: 8081"),
    one_route("listen: [':8081', '[::1]:8080', unix:/run/x]"),
    one_route("host: '*.internal', path: /x, strip_path: true"),
    one_route("service: billing.us-central1.123"),
    one_route("service: [billing.us-central1, billing.us-east1]"),
    one_route("upstream: ['https://a.example', 'https://${B:-b.example}']"),
    one_route("header: AUTHORIZATION"),
    one_route("credentials: {impersonate: a@b.c, delegates: [], source: metadata}"),
    one_route("timeouts: {connect: 1.5s, total: off}"),
    one_route("retries: {on: [429, '503', reset], budget: 12.5%, max_body: 65536}"),
    one_route("limits: {header_bytes: 64KiB, body_bytes: 0}"),
    one_route("allow_origins: [null, 'http://localhost:5173']"),
    one_route("allow_origins: ['null']"),
    one_route("allow_credentials: true, allow_origins: [null]"),
    one_route("rewrite_redirects: true"),
    one_route("allow_hosts: any"),
    one_route("allow_hosts: host.docker.internal"),
    one_route("allow_hosts: ['*.a.example', '[::1]']"),
    one_route("allow_hosts: []"),
    one_route("set_headers: {X-A: '', X-B: a b}, remove_headers: [Cookie]"),
    one_route(top="admin: off\nlisten: 8080"),
    one_route(top="admin: {listen: 9091, quit: true}\ndrain: off\nworkers: 2"),
    one_route(top="log: {level: debug, format: json, access: off}"),
    one_route(top="defaults: {auth: none, timeouts: {idle: 1h}}"),
    block_route("strip_path: ${A:-true}\nretries:\n  attempts: ${B:-3}\nprotocol: ${C:-h2}\n"),
    "routes: {a: &a {service: b}, c: {<<: *a, path: /c}}",
]


@pytest.mark.parametrize("text", GOOD)
def test_what_the_parser_accepts_the_schema_accepts(text: str) -> None:
    assert told(text) == []
    assert list(validator().iter_errors(load(text))) == []


BAD = [
    "routes: {}",
    "routes: []",
    "workers: 1",
    "routes: {a: {}}",
    "routes: {a: }",
    "routes: {a b: {service: b}}",
    "routes: {a: {service: b, upstream: 'https://a.example'}}",
    *(
        one_route(keys)
        for keys in (
            "pth: /x",
            "listen: x",
            "listen: []",
            "listen: 65536",
            "listen: true",
            "host: []",
            "host: a.example:80",
            "host: true",
            "host: 12",
            "host: '*.'",
            "path: x",
            "path: '/a?b'",
            "path: 1",
            "strip_path: yes",
            "strip_path: 'true'",
            "upstream: ftp://x",
            "upstream: 'https://u:p@x'",
            "upstream: 'https://x?y'",
            "upstream: 12",
            "upstream: []",
            "upstream: ['https://a.example', ftp://x]",
            "service: Billing",
            "service: []",
            "service: [billing, Billing]",
            "service: true",
            "service: a.b.c",
            "audience: ''",
            "audience: 12",
            "audience: null",
            "auth: maybe",
            "header: Cookie",
            "credentials: google",
            "credentials: {}",
            "credentials: {token_file: ''}",
            "credentials: {impersonate: a@b.c, token_file: x}",
            "credentials: {delegates: []}",
            "credentials: {impersonate: a@b.c, source: {token_file: x}}",
            "credentials: {impersonate: x}",
            "protocol: http2",
            "timeouts: 5s",
            "timeouts: {connect: 5}",
            "timeouts: {connect: 5 s}",
            "timeouts: {connect: false}",
            "timeouts: {conect: 5s}",
            "retries: {attempts: 0}",
            "retries: {attempts: '2'}",
            "retries: {attempts: 1.5}",
            "retries: {on: [399]}",
            "retries: {on: [600]}",
            "retries: {on: [5xx]}",
            "retries: {on: 503}",
            "retries: {methods: [get]}",
            "retries: {methods: [TRUE]}",
            "retries: {budget: 0.2}",
            "retries: {backoff: off}",
            "retries: {max_body: 64KB}",
            "limits: {queue: -1}",
            "limits: {body_bytes: 1.5MiB}",
            "errors: html",
            "allow_origins: ['*']",
            "allow_credentials: 1",
            "rewrite_redirects: 301",
            "allow_hosts: '*'",
            "allow_hosts: ['a.example:8081']",
            "allow_hosts: ['http://a.example']",
            "allow_origins: ['https://a.example/']",
            "allow_origins: 'https://a.example'",
            "set_headers: {X A: b}",
            "set_headers: {X-A: 1}",
            'set_headers: {X-A: "a\\nb"}',
            "set_headers: {X-A: ' a'}",
            "remove_headers: [true]",
            "remove_headers: ['a b']",
            "ca_file: ''",
            "ca_file: 1",
        )
    ),
    *(
        one_route(top=top)
        for top in (
            "lisen: 8080",
            "listen: {a: b}",
            "admin: false",
            "admin: {listen: off}",
            "admin: {quit: 1}",
            "admin: [9090]",
            "defaults: {path: /}",
            "defaults: []",
            "log: {level: trace}",
            "log: {access: false}",
            "drain: 8",
            "sigterm_delay: off",
            "workers: 0",
            "workers: two",
        )
    ),
]


@pytest.mark.parametrize("text", BAD)
def test_what_the_schema_refuses_the_parser_refuses(text: str) -> None:
    assert not accepted(text)
    assert told(text) != []


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 70000),
    st.sampled_from(
        [
            "auto",
            "off",
            "none",
            "h2",
            "8080",
            ":1",
            "127.0.0.1:9",
            "unix:/x",
            "/",
            "/a",
            "/a/",
            "a.b",
            "*.a",
            "https://a",
            "http://a/b?c",
            "5s",
            "0s",
            "1.5h",
            "5",
            "64KiB",
            "64KB",
            "20%",
            "101%",
            "GET",
            "get",
            "429",
            "reset",
            "null",
            "~",
            "X-A",
            "TRUE",
            "authorization",
            "a@b",
        ]
    ),
    st.text(alphabet="a/:.*% -1", max_size=6),
)
VALUES = st.one_of(
    SCALARS,
    st.lists(SCALARS, max_size=2),
    st.dictionaries(
        st.sampled_from(
            [
                "connect",
                "total",
                "attempts",
                "on",
                "methods",
                "budget",
                "max_body",
                "queue",
                "body_bytes",
                "listen",
                "quit",
                "impersonate",
                "source",
                "X-A",
                "level",
                "access",
            ]
        ),
        st.one_of(SCALARS, st.lists(SCALARS, max_size=2)),
        max_size=2,
    ),
)


@given(
    top=st.dictionaries(st.sampled_from([key.name for key in TOP.keys]), VALUES, max_size=2),
    route=st.dictionaries(st.sampled_from([key.name for key in ROUTE.keys]), VALUES, max_size=3),
)
def test_no_document_is_refused_by_the_schema_alone(
    top: dict[str, Any], route: dict[str, Any]
) -> None:
    if "service" not in route:
        route = {"upstream": "https://a.example", **route}
    document = {**top, "routes": {"a": route}}

    # JSON is YAML: every text is quoted, every other scalar is plain.
    if not told(json.dumps(document)):
        assert list(validator().iter_errors(document)) == []
