"""Which answers are Google's front end's own, and what is said of them."""

from __future__ import annotations

import dataclasses

import pytest

from proxy.config.model import Address, Auth, Destination, Route, Service, Upstream
from proxy.identity.token import Token
from proxy.plane.front_end import (
    PAGE_BYTES,
    STATUSES,
    explain,
    is_platform,
    may_be_platform,
    may_become_page,
    service_of,
)
from proxy.plane.head import ResponseHead, block
from tests.fakes.answers import APPLICATIONS, HTML, PLATFORM, SERVER, Answer, page


def head_of(answer: Answer, *more: tuple[bytes, bytes]) -> ResponseHead:
    fields = block([*more, *answer.pairs])
    return ResponseHead(answer.status, fields, length=len(answer.body))


@pytest.mark.parametrize("answer", PLATFORM, ids=str)
def test_the_front_ends_answers_are_recognised(answer: Answer) -> None:
    assert may_be_platform(head_of(answer))
    assert is_platform(head_of(answer), answer.body)


@pytest.mark.parametrize("answer", PLATFORM, ids=str)
def test_an_answer_whose_length_is_not_announced_is_recognised(answer: Answer) -> None:
    head = head_of(answer)
    head.length = None

    assert is_platform(head, answer.body)


@pytest.mark.parametrize("answer", [each for each in PLATFORM if each.body], ids=str)
def test_whatever_part_of_a_page_has_come_may_become_one(answer: Answer) -> None:
    assert all(may_become_page(answer.body[:size]) for size in range(len(answer.body)))


@pytest.mark.parametrize("answer", APPLICATIONS, ids=str)
def test_applications_answers_are_not(answer: Answer) -> None:
    assert not is_platform(head_of(answer), answer.body)


@pytest.mark.parametrize(
    "field",
    [
        (b"Set-Cookie", b"a=b"),
        (b"x-powered-by", b"Express"),
        (b"ETag", b'"1"'),
        (b"vary", b"Origin"),
        (b"content-encoding", b"gzip"),
        (b"X-Anything", b"1"),
        (b"server", b"nginx"),
        (b"Server", b"google frontend"),
    ],
    ids=lambda field: field[0].decode(),
)
@pytest.mark.parametrize("answer", PLATFORM, ids=str)
def test_a_field_of_an_applications_own_makes_it_the_applications(
    answer: Answer, field: tuple[bytes, bytes]
) -> None:
    # A description has the token replaced, whoever passes it on.
    assert may_be_platform(head_of(answer, field)) is ("described" in answer.name)
    assert not is_platform(head_of(answer, field), answer.body)


@pytest.mark.parametrize("answer", [each for each in PLATFORM if each.body], ids=str)
def test_a_page_that_is_cut_or_goes_on_is_none(answer: Answer) -> None:
    assert not is_platform(head_of(answer), answer.body + b"<")
    assert not is_platform(head_of(answer), answer.body[: len(answer.body) // 2])


def test_a_description_before_another_body_is_passed_on_by_an_application() -> None:
    answer = next(each for each in PLATFORM if "described" in each.name)
    relayed = dataclasses.replace(answer, fields=(*answer.fields, HTML), body=b"<html>no</html>")

    assert may_be_platform(head_of(relayed))
    assert not is_platform(head_of(relayed), relayed.body)


def with_url(size: int) -> Answer:
    """Return a 403 of so many bytes, most of which are the URL."""
    around = len(page(403, "Forbidden", "Your client does not have permission to get URL "))
    url = "x" * (size - around)
    said = page(403, "Forbidden", f"Your client does not have permission to get URL {url}")
    return Answer("a long URL", 403, (HTML, SERVER), said)


@pytest.mark.parametrize(
    ("size", "expected"), [(PAGE_BYTES - 1, True), (PAGE_BYTES, True), (PAGE_BYTES + 1, False)]
)
def test_a_page_is_small(size: int, *, expected: bool) -> None:
    answer = with_url(size)
    assert len(answer.body) == size

    assert may_be_platform(head_of(answer)) is expected
    head = head_of(answer)
    head.length = None
    assert is_platform(head, answer.body) is expected


def test_a_head_without_a_body_is_nobodys() -> None:
    for answer in PLATFORM:
        head = head_of(answer)
        head.bodyless = True
        assert may_be_platform(head) is ("described" in answer.name)


# --- what they mean

URL = "orders-123456789.europe-west1.run.app"


def route(host: str | None = URL, service: Service | None = None) -> Route:
    upstream = None if host is None else Upstream("https", host, 443)
    return Route(
        name="orders",
        listen=(Address("127.0.0.1", 0),),
        destinations=(Destination(upstream=upstream, service=service, audience=f"https://{host}"),),
    )


def token(email: str | None) -> Token:
    return Token(value="secret", expires_at=0.0, email=email)


def test_a_401_is_explained_by_account_and_audience() -> None:
    said = explain(401, route(), token("a@p.iam.gserviceaccount.com"))

    assert f"a@p.iam.gserviceaccount.com for the audience https://{URL} was refused" in said.detail
    assert "`audience`" in said.hint
    assert "`gcloud run services describe orders --region=europe-west1 " in said.hint
    assert "secret" not in said.detail + said.hint


@pytest.mark.parametrize("status", [401, 403])
def test_a_call_without_a_token_is_explained_by_its_route(status: int) -> None:
    said = explain(status, route(), None)

    assert "no ID token: the `auth` of route orders is none" in said.detail
    assert said.hint == "Set the route's `auth: id_token`."


def test_a_404_is_explained_by_url_and_ingress() -> None:
    said = explain(404, route(), None)

    assert "internal traffic only" in said.detail
    assert "`gcloud run services describe orders --region=europe-west1`" in said.hint


@pytest.mark.parametrize("status", sorted(STATUSES))
def test_every_status_is_explained_with_what_to_do(status: int) -> None:
    said = explain(status, route(), token("a@p.iam.gserviceaccount.com"))

    assert said.title == f"Google's front end answered {status} in place of the service"
    assert said.reason == f"upstream_{status}"
    assert "gcloud run services " in said.hint
    assert " --region=europe-west1" in said.hint
    assert "{" not in said.hint.replace("{on: [429]}", "")


@pytest.mark.parametrize(
    ("email", "member"),
    [
        ("a@p.iam.gserviceaccount.com", "serviceAccount:a@p.iam.gserviceaccount.com"),
        ("me@example.com", "user:me@example.com"),
    ],
)
def test_a_403_is_explained_by_the_role_and_the_command_that_grants_it(
    email: str, member: str
) -> None:
    said = explain(403, route(), token(email))

    assert said.detail.startswith(f"{email} may not call the service (audience https://{URL})")
    assert "roles/run.invoker" in said.detail
    assert said.hint == (
        "gcloud run services add-iam-policy-binding orders --region=europe-west1"
        f" --member={member} --role=roles/run.invoker"
    )


def test_an_account_that_is_not_known_is_paraphrased() -> None:
    assert (
        "the account of these credentials may not call" in explain(403, route(), token(None)).detail
    )


@pytest.mark.parametrize(
    ("host", "service"),
    [
        (URL, ("orders", "europe-west1")),
        (f"blue---{URL}", ("orders", "europe-west1")),
        ("my-orders-1.us-east1.run.app", ("my-orders", "us-east1")),
        ("orders-abc123-uc.a.run.app", ("SERVICE", "REGION")),  # Not to be parsed.
        ("orders.europe-west1.run.app", ("SERVICE", "REGION")),
        ("orders.example", ("SERVICE", "REGION")),
        (None, ("SERVICE", "REGION")),
    ],
)
def test_a_service_is_named_as_far_as_its_url_tells(
    host: str | None, service: tuple[str, str]
) -> None:
    assert service_of(route(host)) == service


@pytest.mark.parametrize(("region", "named"), [("us-east1", "us-east1"), ("", "REGION")])
def test_a_service_that_is_configured_by_name_is_called_by_it(region: str, named: str) -> None:
    assert service_of(route(service=Service("billing", region))) == ("billing", named)


@pytest.mark.parametrize(
    ("status", "advice"), [(401, "clock"), (403, "`scopes`"), (404, "`upstream`")]
)
def test_refusals_on_the_way_to_an_api_are_no_matter_of_cloud_run(status: int, advice: str) -> None:
    api = dataclasses.replace(route(), auth=Auth.ACCESS_TOKEN, scopes=("s1", "s2"))

    said = explain(status, api, token("a@b.c"))
    assert said.detail == "The call carried an access token of a@b.c for s1 s2."
    assert advice in said.hint
    assert "run.invoker" not in said.hint
