"""Tags and audiences of Cloud Run's host names."""

from __future__ import annotations

import pytest

from proxy.config.model import Upstream
from proxy.identity.names import audience_of, strip_tag


@pytest.mark.parametrize(
    ("host", "plain"),
    [
        ("orders-abc123-uc.a.run.app", "orders-abc123-uc.a.run.app"),
        ("green---orders-abc123-uc.a.run.app", "orders-abc123-uc.a.run.app"),
        ("v1-2---orders-42.us-central1.run.app", "orders-42.us-central1.run.app"),
        ("orders.a---b.run.app", "orders.a---b.run.app"),
        ("tag---.run.app", "tag---.run.app"),
        ("localhost", "localhost"),
        ("a---localhost", "localhost"),
    ],
)
def test_a_revision_tag_is_cut_off_the_host(host: str, plain: str) -> None:
    assert strip_tag(host) == plain


@pytest.mark.parametrize(
    ("upstream", "audience"),
    [
        (Upstream("https", "t---a-1.b.run.app", 443, "/base"), "https://a-1.b.run.app"),
        (Upstream("https", "a.example", 8443), "https://a.example:8443"),
        (Upstream("http", "127.0.0.1", 80), "http://127.0.0.1"),
        (Upstream("https", "::1", 443), "https://[::1]"),
    ],
)
def test_the_audience_is_the_origin_without_the_tag(upstream: Upstream, audience: str) -> None:
    assert audience_of(upstream) == audience
