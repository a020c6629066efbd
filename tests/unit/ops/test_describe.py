"""A configuration in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from proxy.config.model import (
    Address,
    AutoCredentials,
    Credentials,
    GcloudCredentials,
    Impersonate,
    MetadataCredentials,
    Route,
    Service,
    ServiceAccountFile,
    TokenFile,
    Upstream,
)
from proxy.ops import describe


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (AutoCredentials(), "auto"),
        (MetadataCredentials(), "metadata"),
        (GcloudCredentials(), "gcloud"),
        (ServiceAccountFile(Path("/k.json")), "service_account_file /k.json"),
        (TokenFile(Path("/t")), "token_file /t"),
        (Impersonate("a@x"), "impersonate a@x with auto"),
        (
            Impersonate("a@x", ("b@x", "c@x"), TokenFile(Path("/t"))),
            "impersonate a@x through b@x, c@x with token_file /t",
        ),
    ],
)
def test_credentials_are_said_in_the_words_of_the_configuration(
    value: Credentials, words: str
) -> None:
    assert describe.credentials(value) == words


def route(**keys: Any) -> Route:
    return Route(name="orders", listen=(Address(),), **keys)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (route(), "/"),
        (route(path="/orders"), "/orders/…"),
        (route(host=("a.internal",)), "a.internal/"),
        (route(host=("a.x", "*.a.x"), path="/b"), "a.x/b/…, *.a.x/b/…"),
    ],
)
def test_a_route_says_what_it_matches(made: Route, words: str) -> None:
    assert describe.matches(made) == words


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (route(upstream=Upstream("https", "x.run.app", 443, "/base")), "https://x.run.app/base"),
        (route(service=Service("billing", "europe-west1")), "service billing.europe-west1"),
        (route(), "unresolved"),
    ],
)
def test_a_route_says_where_it_leads(made: Route, words: str) -> None:
    assert describe.upstream(made) == words
