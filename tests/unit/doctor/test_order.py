"""Which token the word of `token` stands for."""

from __future__ import annotations

import pytest

from proxy.config.model import AutoCredentials, Config, GcloudCredentials, MetadataCredentials
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
    assert (order.route.name, order.audience) == ("orders", "https://orders.example")
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

    assert (order.route, order.audience) == (None, audience)
    assert order.credentials == credentials


def test_without_a_configuration_every_word_is_an_audience(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert order_for("orders", None).audience == "orders"
    assert capsys.readouterr().err == ""


def test_only_a_word_that_is_near_a_routes_name_is_remarked_on(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    order_for("https://order.example", config)
    order_for("123-abc.apps.googleusercontent.com", config)
    assert capsys.readouterr().err == ""

    order_for("ordrs", config)
    assert "did you mean 'orders'?" in capsys.readouterr().err
