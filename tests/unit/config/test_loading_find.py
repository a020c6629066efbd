from __future__ import annotations

from pathlib import Path

import pytest

from proxy.config.loading import PLACES, ConfigSource, find
from proxy.config.overrides import Override
from proxy.config.problems import ConfigError
from tests.fakes.secrets import SECRETS

ENV = {"AUTH_PROXY_CONFIG": "env.yaml", "AUTH_PROXY_CONFIG_YAML": "routes: {a: {service: b}}"}


def refused(url: str | None, config: str | None, places: tuple[Path, ...] = ()) -> str:
    with pytest.raises(ConfigError) as raised:
        find(url, config, {}, places)
    return str(raised.value)


def test_a_url_means_that_no_file_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / "proxy.yaml").touch()
    assert find("https://a", None, ENV, (tmp_path / "proxy.yaml",)) == ConfigSource(url="https://a")


def test_a_named_file_comes_before_the_environment() -> None:
    assert find(None, "flag.yaml", ENV) == ConfigSource(file=Path("flag.yaml"))


def test_the_variable_with_the_files_name_comes_before_the_one_with_the_text() -> None:
    assert find(None, None, ENV) == ConfigSource(file=Path("env.yaml"))


def test_the_text_in_the_environment_comes_before_the_usual_places(tmp_path: Path) -> None:
    (tmp_path / "proxy.yaml").touch()
    env = {**ENV, "AUTH_PROXY_CONFIG": ""}
    found = find(None, None, env, (tmp_path / "proxy.yaml",))
    assert found == ConfigSource(text="routes: {a: {service: b}}")


def test_the_first_of_the_usual_places_that_exists_is_taken(tmp_path: Path) -> None:
    first, second = tmp_path / "1.yaml", tmp_path / "2.yaml"
    second.touch()
    assert find(None, None, {}, (first, second)) == ConfigSource(file=second)
    first.touch()
    assert find(None, None, {}, (first, second)) == ConfigSource(file=first)


@pytest.mark.parametrize("secret", SECRETS, ids=range(len(SECRETS)))
def test_a_secret_in_place_of_the_files_name_is_not_shown(secret: str) -> None:
    said = (
        f"looks like {SECRETS[secret]}, not like the name of a file; "
        "write a path, or put a whole document into AUTH_PROXY_CONFIG_YAML"
    )

    assert refused(None, secret) == f"--config: {said}"
    with pytest.raises(ConfigError) as raised:
        find(None, None, {"AUTH_PROXY_CONFIG": secret})
    assert str(raised.value) == f"AUTH_PROXY_CONFIG: {said}"


def test_a_file_may_have_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "0123456789abcdef0123456789abcdef01234567"
    (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)

    assert find(None, name, {}) == ConfigSource(file=Path(name))


def test_a_broken_link_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "1.yaml").symlink_to(tmp_path / "none")
    (tmp_path / "2.yaml").touch()
    found = find(None, None, {}, (tmp_path / "1.yaml", tmp_path / "2.yaml"))
    assert found == ConfigSource(file=tmp_path / "1.yaml")


def test_the_usual_places_are_the_working_folder_and_etc() -> None:
    assert [str(place) for place in PLACES] == [
        "config/proxy.yaml",
        "/etc/cloud-run-auth-proxy/config.yaml",
    ]


def test_without_any_configuration_every_way_is_named() -> None:
    assert refused(None, None, (Path("a.yaml"), Path("/b.yaml"))) == (
        "no configuration: give a URL, --config FILE, AUTH_PROXY_CONFIG or "
        "AUTH_PROXY_CONFIG_YAML, or write a.yaml or /b.yaml"
    )


def test_a_url_and_a_file_are_one_too_many() -> None:
    assert refused("https://a", "f.yaml") == "URL: stands beside --config; give one of them"


def test_a_source_can_be_read_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "proxy.yaml"
    path.write_text("routes: {a: {service: b}}")
    source = ConfigSource(file=path)
    assert source.read({}, {}).routes[0].name == "a"
    path.write_text("routes: {c: {service: b}}")
    assert source.read({}, {}).routes[0].name == "c"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (ConfigSource(url="https://a.example"), "https://a.example"),
        (ConfigSource(text="routes: {a: {service: b}}"), "AUTH_PROXY_CONFIG_YAML"),
    ],
)
def test_a_configuration_knows_its_source_and_takes_overrides(
    source: ConfigSource, name: str
) -> None:
    config = source.read({}, {"workers": Override("--workers", "2")})
    assert (config.source, config.workers) == (name, 2)


def test_problems_of_inline_text_name_the_variable() -> None:
    with pytest.raises(ConfigError) as raised:
        ConfigSource(text="routes: {a: {}}").read({}, {})

    assert str(raised.value).startswith("AUTH_PROXY_CONFIG_YAML:1:10: routes.a: leads nowhere; ")
