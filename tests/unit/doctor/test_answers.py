from __future__ import annotations

import pytest

from proxy.doctor.answers import Answer, By
from proxy.emulator.pages import INVALID_TOKEN, Page
from tests.unit.doctor.patients import answer, front, paged

PAGES = [Page(status) for status in (401, 403, 404, 429, 500, 502, 503, 504)]


@pytest.mark.parametrize("page", [*PAGES, Page(404, robot=True)])
def test_googles_pages_are_recognised(page: Page) -> None:
    assert paged(page, connection="close").by is By.GOOGLE


@pytest.mark.parametrize(
    "its_own", [{"x_powered_by": "Express"}, {"etag": "x"}, {"server": "nginx"}, {"vary": "Origin"}]
)
def test_a_page_with_a_field_that_google_does_not_send_is_the_services(
    its_own: dict[str, str],
) -> None:
    """As on the data path, which would pass it on."""
    assert paged(Page(404), **its_own).by is By.SERVICE


def test_a_refused_token_is_googles_word_without_any_page() -> None:
    assert answer(401, www_authenticate=INVALID_TOKEN[1]).by is By.GOOGLE
    assert answer(403, www_authenticate=INVALID_TOKEN[1]).by is By.SERVICE
    assert answer(401, www_authenticate='Basic realm="invalid_token"').by is By.SERVICE
    assert answer(401, www_authenticate="Bearer").by is By.SERVICE
    its_own = 'Bearer error="invalid_token", error_description="Jwt expired at 1767225600"'
    assert answer(401, www_authenticate=its_own).by is By.SERVICE


@pytest.mark.parametrize(
    ("body", "by"),
    [
        ("Rate exceeded.", By.GOOGLE),
        ("Service Unavailable", By.GOOGLE),
        ("upstream connect error or disconnect/reset before headers. reset reason: x", By.GOOGLE),
        ("Service Unavailable: the database is down", By.SERVICE),
        ("the service is unavailable", By.SERVICE),
        ("", By.SERVICE),
    ],
)
def test_a_line_of_text_is_googles_if_it_is_its_own(body: str, by: By) -> None:
    found = answer(503, body, content_type="text/plain", server="Google Frontend")
    assert found.by is by


def test_a_refusal_by_a_perimeter_is_googles() -> None:
    said = '{"message": "vpcServiceControlsUniqueIdentifier: x"}'
    assert answer(403, said, content_type="application/json").by is By.GOOGLE
    assert answer(500, said, content_type="application/json").by is By.SERVICE


def test_a_services_own_page_is_the_services() -> None:
    page = "<html><h1>Error: not here</h1></html>"

    assert answer(404, page, content_type="text/html").by is By.SERVICE
    assert front(404, content_type="application/json").by is By.SERVICE
    whole = front(404)
    assert Answer(404, whole.fields, f"{whole.body}<p>and more</p>").by is By.SERVICE


def test_a_page_is_no_refusal_where_the_status_is_none() -> None:
    whole = front(404)
    assert Answer(200, whole.fields, whole.body).by is By.SERVICE


def test_identity_aware_proxy_says_so_itself() -> None:
    assert front(403, x_goog_iap_generated_response="true").by is By.IAP
    assert answer(302, x_goog_iap_generated_response="TRUE").by is By.IAP


@pytest.mark.parametrize(
    ("date", "seconds"),
    [
        ("Thu, 01 Jan 1970 00:01:00 GMT", 60.0),
        ("", None),
        ("yesterday", None),
        ("Thu, 99 Jan 1970 00:01:00 GMT", None),
    ],
)
def test_the_date_is_read_or_left_out(date: str, seconds: float | None) -> None:
    assert answer(200, date=date).date == seconds
    assert answer(200).date is None


def test_a_servers_name_is_cut_and_cleaned() -> None:
    assert answer(200, server="a\tb").server == "a b"
    assert len(answer(200, server="name " * 40).server) == 40


def test_an_answers_body_stays_out_of_its_text_form() -> None:
    assert "hello" not in repr(answer(200, "hello"))
