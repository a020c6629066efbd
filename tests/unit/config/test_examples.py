from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from proxy.config.keys import ROUTE, TOP
from proxy.config.kinds import Section, WordOrSection
from proxy.config.loading import from_url, load
from proxy.config.model import Config

CONFIG = Path(__file__).parents[3] / "config"


def without_source(config: Config) -> Config:
    return dataclasses.replace(config, source="")


@pytest.mark.parametrize(
    "name",
    [
        "proxy.yaml",
        "examples/one-service.yaml",
        "examples/by-path.yaml",
        "examples/a-port-each.yaml",
        "examples/google-apis.yaml",
    ],
)
def test_an_example_runs_as_it_stands(name: str) -> None:
    assert load(CONFIG / name, {}).routes


def test_the_complete_file_says_what_is_the_default_anyway() -> None:
    written = load(CONFIG / "proxy.yaml", {})
    assumed = from_url("http://127.0.0.1:3001")

    assert without_source(written) == without_source(assumed)


def test_the_complete_file_names_every_key() -> None:
    text = (CONFIG / "proxy.yaml").read_text()
    for key in (*TOP.keys, *ROUTE.keys):
        kind = key.kind
        section = kind.section if isinstance(kind, WordOrSection) else kind
        inner = section.keys if isinstance(section, Section) else ()
        for name in (key.name, *(each.name for each in inner)):
            assert f"{name}:" in text, name


def test_the_complete_file_takes_a_real_service_from_the_environment() -> None:
    url = "https://orders-123456789012.us-central1.run.app"
    assert load(CONFIG / "proxy.yaml", {"SERVICE_URL": url}).routes[0].first.audience == url
