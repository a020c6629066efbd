from __future__ import annotations

import pytest

from proxy.doctor.smells import audience_smell, is_cloud_run
from tests.unit.doctor.patients import HASHED, URL, patient

FINE = [
    "",
    f"audience: '{URL}'",
    f"audience: '{HASHED}'",
    "audience: https://orders.example.com",
    # Custom audiences may be any string.
    "audience: https://orders.example.com/v1/",
    "audience: orders",
    "audience: 123-abc.apps.googleusercontent.com",
    "audience: /projects/1/global/backendServices/2",
    "audience: 'https://[broken'",
    "audience: 'https://a.run.app:0'",
    # Functions have their name in the path.
    "audience: https://us-central1-project.cloudfunctions.net/orders",
    "auth: none",
]


@pytest.mark.parametrize("keys", FINE)
def test_an_audience_that_may_be_right_is_not_suspicious(keys: str) -> None:
    assert audience_smell(patient(keys)) is None


@pytest.mark.parametrize(
    ("audience", "what"),
    [
        (f"{URL}/", "ends with a slash"),
        (f"{URL}/v1/orders", "has a path (/v1/orders)"),
        (f"{URL}:443", "names the port 443"),
        (f"{URL}?x=1", "has a query or a fragment"),
        (f"{URL}#x", "has a query or a fragment"),
        (URL.replace("https", "http"), "begins with http://"),
        (URL.removeprefix("https://"), "has no https:// before it"),
        (URL.replace("orders", "Orders"), "has capital letters"),
        (URL.replace("orders", "green---orders"), "has a revision's tag (green---)"),
    ],
)
def test_what_cloud_run_does_not_take_is_named(audience: str, what: str) -> None:
    smell = audience_smell(patient(f"audience: '{audience}'"))

    assert smell is not None
    assert smell.reason == "audience_suspicious"
    assert smell.why.startswith(f"The audience {audience} {what};")
    assert smell.fix == f"Leave the route's audience out: its default is {URL}."


def test_several_faults_are_named_at_once() -> None:
    smell = audience_smell(patient("audience: 'http://green---other-1.us-east1.run.app/'"))

    assert smell is not None
    assert "begins with http:// and has a revision's tag (green---) and ends with" in smell.why
    assert smell.fix.startswith("Write audience: https://other-1.us-east1.run.app, or make")


def test_the_upstreams_own_domain_is_meant_as_its_url() -> None:
    route = patient("audience: 'https://orders.example.com/'", "https://orders.example.com")

    assert audience_smell(route) is not None


@pytest.mark.parametrize(
    ("host", "expected"),
    [("a-1.us-central1.run.app", True), ("A.RUN.APP", True), ("run.app.example.com", False)],
)
def test_cloud_runs_own_hosts_are_known(host: str, *, expected: bool) -> None:
    assert is_cloud_run(host) is expected
