"""Contexts that verify an upstream, for those that want one of their own."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from proxy.plane import trust
from tests.fakes import tls


def settled(client: ssl.SSLContext, server: ssl.SSLContext) -> str | None:
    """Let both shake hands for ``localhost``; return the protocol that they have settled on.

    Raises `ssl.SSLCertVerificationError` where the client does not trust the server's issuer.
    """
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname="localhost")
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    waiting = [ours, theirs]
    while waiting:
        end = waiting.pop(0)
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            waiting.append(end)
    return ours.selected_alpn_protocol()


@pytest.mark.parametrize("offered", [("http/1.1",), ("h2", "http/1.1")])
def test_a_context_of_ones_own_trusts_the_file_and_offers_what_is_asked(
    offered: tuple[str, ...], tmp_path: Path
) -> None:
    context = trust.whole_context(tls.ca_file(tmp_path), offered)

    assert settled(context, tls.server_context(alpn=tls.HTTP2)) == offered[0]


def test_a_context_of_ones_own_trusts_no_stranger(tmp_path: Path) -> None:
    context = trust.whole_context(tls.ca_file(tmp_path), tls.HTTP1)
    stranger = tls.server_context(issuer=tls.foreign_authority())

    with pytest.raises(ssl.SSLCertVerificationError):
        settled(context, stranger)


def test_a_context_of_ones_own_is_nobody_elses(tmp_path: Path) -> None:
    """What it offers must not become what the data path offers."""
    file = tls.ca_file(tmp_path)

    assert trust.whole_context(file, tls.HTTP2) is not trust.load(file).context
