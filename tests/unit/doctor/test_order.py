"""Which token the word of `token` stands for."""

from __future__ import annotations

import pytest

from proxy.config.model import AutoCredentials, Config, GcloudCredentials, MetadataCredentials
from proxy.config.problems import ConfigError
from proxy.doctor.token import order_for
from tests.unit.config.reading import read

ROUTES = """
routes:
  orders: {path: /1, upstream: 'https://orders.example', timeouts: {connect: 3s}}
  billing: {path: /2, upstream: 'https://billing.example', credentials: metadata}
  shared: {path: /3, upstream: 'https://a.example', audience: both, credentials: metadata}
  divided: {path: /4, upstream: 'https://b.example', audience: both, credentials: gcloud}
  twice: {path: /5, upstream: 'https://c.example', audience: same, credentials: gcloud}
  again: {path: /6, upstream: 'https://d.example', audience: same, credentials: gcloud}
"""


@pytest.fixture
def config() -> Config:
    return read(ROUTES)


def test_a_route_has_its_own_audience_credentials_and_patience(config: Config) -> None:
    order = order_for("orders", config)

    assert order.route is not None
    assert (order.route.name, order.wanted) == ("orders", "https://orders.example")
    assert (order.credentials, order.within) == (AutoCredentials(), 3.0)


@pytest.mark.parametrize(
    ("audience", "credentials"),
    [
        ("https://billing.example", MetadataCredentials()),
        ("https://billing.example/", AutoCredentials()),
        ("https://elsewhere.example", AutoCredentials()),
        ("both", AutoCredentials()),
        ("same", GcloudCredentials()),
    ],
)
def test_an_audience_is_fetched_as_the_routes_would_that_have_it(
    config: Config, audience: str, credentials: object
) -> None:
    order = order_for(audience, config)

    assert (order.route, order.wanted) == (None, audience)
    assert order.credentials == credentials


AUDIENCES = [
    "https://order.example",
    "123-abc.apps.googleusercontent.com",
    "urn:order",
    "//iam.googleapis.com/projects/1",
    "orders/x",
]


@pytest.mark.parametrize("word", AUDIENCES)
def test_what_looks_like_an_audience_is_one(config: Config, word: str) -> None:
    assert order_for(word, config).wanted == order_for(word, None).wanted == word


@pytest.mark.parametrize(
    ("word", "guess"),
    [("ordrs", "; did you mean 'orders'?"), ("orders.", "; did you mean 'orders'?"), ("x", "")],
)
def test_any_other_word_is_refused(config: Config, word: str, guess: str) -> None:
    with pytest.raises(ConfigError) as raised:
        order_for(word, config)

    assert str(raised.value) == (
        f"{word}: no route of f has this name, "
        f"and an audience looks like https://billing.example.com{guess}"
    )


def test_the_audience_of_any_destination_is_known() -> None:
    lead = "upstream: ['https://a.example', 'https://b.example']"
    config = read(f"routes: {{orders: {{{lead}, credentials: metadata}}}}")

    assert order_for("orders", config).wanted == "https://a.example"
    assert order_for("https://b.example", config).credentials == MetadataCredentials()
