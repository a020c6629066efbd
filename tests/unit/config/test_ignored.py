"""What has no effect is known, and nothing else is called so."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.config import show
from proxy.config.loading import ConfigSource, find
from proxy.config.overrides import Override
from tests.fakes.tls import ca_file
from tests.unit.config.reading import UPSTREAM, one_route, read

LOCAL = "http://127.0.0.1:3001"
FULL = f"""
listen: [127.0.0.1:8080, 127.0.0.1:8081]
defaults: {{audience: https://one.example, credentials: metadata}}
routes:
  sent: {{upstream: {UPSTREAM}, audience: https://two.example, credentials: gcloud}}
  local: {{path: /l, upstream: "{LOCAL}"}}
"""


def ignored(text: str, env: dict[str, str] | None = None) -> list[str]:
    return [str(each) for each in read(text, env).ignored]


def test_what_has_an_effect_is_not_ignored() -> None:
    assert ignored(FULL) == []


def test_keys_about_id_tokens_are_ignored_where_none_is_sent() -> None:
    keys = f'upstream: "{LOCAL}", audience: https://x.example, credentials: metadata'

    why = "route a sends no token (auth: none)"
    assert ignored(one_route(keys)) == [
        f"routes.a.audience: {why}",
        f"routes.a.credentials: {why}",
    ]
    assert ignored(one_route(f"{keys}, auth: id_token")) == []


def test_a_flag_without_effect_is_told_by_its_name() -> None:
    overrides = {"audience": Override("--audience", "https://x.example")}

    (found,) = ConfigSource(url=LOCAL).read({}, overrides).ignored
    assert str(found) == "--audience: route default sends no token (auth: none)"


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ("host: a.internal", "the route serves its own host names alone"),
        ("listen: 0.0.0.0:1", "none of the route's listeners is on a loopback address"),
        ("listen: [unix:/x, '[::]:1']", "none of the route's listeners is on a loopback address"),
        ("listen: [unix:/x, '[::1]:1']", ""),
        ("listen: my-laptop:1", ""),
        ("path: /x", ""),
    ],
)
def test_allowed_hosts_are_ignored_where_no_host_is_refused(keys: str, why: str) -> None:
    found = ignored(one_route(f"upstream: {UPSTREAM}, allow_hosts: b.internal, {keys}"))

    assert found == ([f"routes.a.allow_hosts: {why}"] if why else [])


@pytest.mark.parametrize(
    ("keys", "is_told"),
    [
        ("allow_credentials: true", True),
        ("allow_credentials: true, allow_origins: []", True),
        ("allow_credentials: true, allow_origins: [null]", False),
        ("allow_credentials: false", False),
    ],
)
def test_credentials_are_allowed_to_nobody_without_origins(
    keys: str,
    is_told: bool,  # noqa: FBT001 (a row of the table)
) -> None:
    found = ignored(one_route(f"upstream: {UPSTREAM}, {keys}"))

    why = "the route has no allow_origins, so no page may call"
    assert found == ([f"routes.a.allow_credentials: {why}"] if is_told else [])


@pytest.mark.parametrize(
    ("defaults", "told"),
    [
        ("allow_credentials: true", ["defaults.allow_credentials: no route has allow_origins"]),
        ("allow_credentials: true, allow_origins: [null]", []),
        ("allow_credentials: false", []),
    ],
)
def test_credentials_that_all_routes_allow_are_told_once(defaults: str, told: list[str]) -> None:
    assert ignored(one_route(top=f"defaults: {{{defaults}}}")) == told


@pytest.mark.parametrize(
    ("upstream", "expected"),
    [(LOCAL, ["routes.a.ca_file: the upstream is plain http"]), (UPSTREAM, [])],
)
def test_roots_are_ignored_without_tls(tmp_path: Path, upstream: str, expected: list[str]) -> None:
    text = one_route(f'upstream: "{upstream}", ca_file: "{ca_file(tmp_path)}"')

    assert ignored(text) == expected


def test_a_listener_that_no_route_uses_is_ignored() -> None:
    own = f"routes: {{a: {{upstream: {UPSTREAM}, listen: [8081, 8082]}}}}"

    assert ignored(f"listen: [8080, 8082]\n{own}") == [
        "listen: localhost:8080 is not opened, for no route uses it"
    ]
    # The default is nobody's word.
    assert ignored(own) == []


def test_the_variable_port_is_ignored_unless_the_text_takes_it() -> None:
    env = {"PORT": "8080"}

    assert ignored(one_route(), env) == ["PORT: listen alone says where; ${PORT} there takes it"]
    assert ignored(one_route(top="listen: ${PORT}"), env) == []
    assert ignored(one_route(top="listen: ${PORT:-8080}"), env) == []
    assert ignored(one_route(), {"PORT": ""}) == []


@pytest.mark.parametrize(
    ("name", "guess"),
    [
        ("AUTH_PROXY_LISTN", "; did you mean 'AUTH_PROXY_LISTEN'?"),
        ("AUTH_PROXY_LOGLEVEL", "; did you mean 'AUTH_PROXY_LOG_LEVEL'?"),
        ("AUTH_PROXY_CONFIG_YML", "; did you mean 'AUTH_PROXY_CONFIG_YAML'?"),
    ],
)
def test_a_mistyped_variable_is_told_with_the_right_one(name: str, guess: str) -> None:
    assert ignored(one_route(), {name: "x"}) == [f"{name}: there is no such variable{guess}"]


@pytest.mark.parametrize(
    "name",
    ["AUTH_PROXY_TEST_SECONDS", "AUTH_PROXY_SERVICE_HOST", "AUTH_PROXY_PORT_8080_TCP", "LISTN"],
)
def test_variables_for_others_are_not_told(name: str) -> None:
    assert ignored(one_route(), {name: "x"}) == []


def test_a_mistyped_variable_that_the_text_names_is_taken() -> None:
    env = {"AUTH_PROXY_LISTN": "8080"}

    assert ignored(one_route(top="listen: ${AUTH_PROXY_LISTN}"), env) == []


def test_a_text_in_the_environment_is_ignored_beside_a_file_or_a_url(tmp_path: Path) -> None:
    env = {"AUTH_PROXY_CONFIG_YAML": one_route(), "PORT": "80"}
    file = tmp_path / "f.yaml"
    file.write_text(one_route())

    by_file, by_url = (
        source.read(env, {}) for source in (ConfigSource(file=file), ConfigSource(url=UPSTREAM))
    )
    by_text = find(None, None, env).read(env, {})

    assert [each.what for each in by_file.ignored] == ["PORT", "AUTH_PROXY_CONFIG_YAML"]
    assert str(by_file.ignored[1]) == f"AUTH_PROXY_CONFIG_YAML: the configuration is {file}"
    assert str(by_url.ignored[1]) == f"AUTH_PROXY_CONFIG_YAML: the configuration is {UPSTREAM}"
    assert [each.what for each in by_text.ignored] == ["PORT"]


PROXY = "http://user:hunter2@proxy.example:3128"


@pytest.mark.parametrize(
    ("entry", "instead"),
    [
        ("*.example.org", "example.org"),
        ("*example.org", "example.org"),
        ("example.org:443", "example.org"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[::1]:443", "::1"),
        ("10.0.0.1:80", "10.0.0.1"),
    ],
)
def test_entries_of_no_proxy_that_exempt_nothing_are_told(entry: str, instead: str) -> None:
    env = {"HTTPS_PROXY": PROXY, "NO_PROXY": f"a.example, {entry}"}
    said = [f"NO_PROXY: the entry {entry} exempts nothing; write {instead}"]

    assert ignored(one_route(), env) == said
    assert ignored(one_route("egress_proxy: off"), env) == []
    assert ignored(one_route(), {"NO_PROXY": entry}) == []


@pytest.mark.parametrize(
    "exempt", ["", "*", "a.example,.b.example", "10.0.0.0/8 ::1", "2001:db8::/32"]
)
def test_entries_that_exempt_something_are_not_told(exempt: str) -> None:
    assert ignored(one_route(), {"HTTPS_PROXY": PROXY, "NO_PROXY": exempt}) == []


def test_an_egress_proxy_for_this_machine_has_no_effect() -> None:
    keys = f'upstream: "{LOCAL}", egress_proxy: "{PROXY}"'

    assert ignored(one_route(keys)) == ["routes.a.egress_proxy: 127.0.0.1:3001 is dialled directly"]
    assert ignored(one_route(f'egress_proxy: "{PROXY}"')) == []


def test_programs_are_told_too() -> None:
    shown = show.routes_as_json(read(one_route(), {"PORT": "80"}))

    assert shown["ignored"] == [
        {"what": "PORT", "why": "listen alone says where; ${PORT} there takes it"}
    ]


def test_what_is_ignored_makes_no_other_configuration() -> None:
    assert read(one_route(), {"PORT": "80"}) == read(one_route())


def test_roots_count_where_any_destination_is_encrypted(tmp_path: Path) -> None:
    lead = f"upstream: ['{LOCAL}', 'https://localhost'], auth: none, ca_file: "
    assert ignored(one_route(f'{lead}"{ca_file(tmp_path)}"')) == []


@pytest.mark.parametrize(
    ("one", "two", "ignored_ones"),
    [
        ("limits: {resets: 5}", "", ["one"]),
        ("limits: {resets: 2000}", "", []),
        ("limits: {resets: 2001}", "", []),
        ("limits: {resets: 5}", "limits: {resets: 6}", ["one"]),
        ("limits: {resets: 5}", "limits: {resets: 0}", ["one"]),
        ("limits: {resets: 0}", "limits: {resets: 6}", ["two"]),
        ("limits: {resets: 5}, listen: 8085", "", []),
        ("limits: {in_flight: 5}", "limits: {resets: 6000}", []),
    ],
)
def test_a_listener_s_limit_is_the_largest_of_its_routes(
    one: str, two: str, ignored_ones: list[str]
) -> None:
    text = f"""
routes:
  one: {{upstream: {UPSTREAM}, path: /1, {one}}}
  two: {{upstream: {UPSTREAM}, path: /2, {two}}}
"""
    why = "another route of its listener allows more"
    assert ignored(text) == [f"routes.{name}.limits.resets: {why}" for name in ignored_ones]
