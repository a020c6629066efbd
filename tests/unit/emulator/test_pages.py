from __future__ import annotations

import pytest

from proxy.emulator.pages import INVALID_TOKEN, Page

NOW = 1_800_000_000.0


def test_a_refused_token_looks_as_google_writes_it() -> None:
    head, _, body = Page(401, (INVALID_TOKEN,)).render("/orders", now=NOW).partition(b"\r\n\r\n")

    assert head.split(b"\r\n") == [
        b"HTTP/1.1 401 Unauthorized",
        (
            b'WWW-Authenticate: Bearer error="invalid_token" '
            b'error_description="The access token could not be verified"'
        ),
        b"Content-Type: text/html; charset=UTF-8",
        b"Content-Length: %d" % len(body),
        b"Date: Fri, 15 Jan 2027 08:00:00 GMT",
        b"Server: Google Frontend",
    ]
    assert b"permission to the requested URL <code>/orders</code>." in body


def test_a_page_shows_the_url_as_text() -> None:
    page = Page(403).render("/<script>", now=NOW)

    assert b"get URL <code>/&lt;script&gt;</code> from this server" in page


def test_braces_in_a_url_are_no_placeholders() -> None:
    assert b"<code>/{url}{0}</code>" in Page(403).render("/{url}{0}", now=NOW)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 502, 503, 504])
def test_the_length_is_that_of_the_body(status: int) -> None:
    head, _, body = Page(status).render("/ä", now=NOW).partition(b"\r\n\r\n")

    assert b"\r\nContent-Length: %d\r\n" % len(body) in head


def test_head_gets_the_length_but_no_body() -> None:
    full = Page(404).render("/", now=NOW)
    head = Page(404).render("/", now=NOW, method="HEAD")

    assert full.startswith(head)
    assert head.endswith(b"\r\n\r\n")


def test_a_connection_that_ends_is_announced() -> None:
    assert b"\r\nConnection: close\r\n" in Page(400).render("/", now=NOW, close=True)
    assert b"Connection" not in Page(400).render("/", now=NOW)
