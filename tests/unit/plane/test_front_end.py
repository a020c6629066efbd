"""Which answers may be the platform's refusal: those are explained in the log."""

from __future__ import annotations

import dataclasses

import pytest

from proxy.config.model import Address, Auth, Destination, Route, Service, Upstream
from proxy.identity.token import Token
from proxy.plane.front_end import explain, refusal_of, service_of
from proxy.plane.head import ResponseHead, block

PAGE = b"text/html; charset=UTF-8"


@pytest.mark.parametrize(
    ("status", "kind", "expected"),
    [
        (401, PAGE, 401),
        (403, PAGE, 403),
        (403, b"application/json", 403),
        (404, PAGE, 404),
        (404, b"TEXT/HTML", 404),
        # An API that has nothing there.
        (404, b"application/json", 0),
        (404, b"text/plain", 0),
        (404, None, 0),
    ],
)
def test_a_404_is_a_refusal_only_as_a_page(status: int, kind: bytes | None, expected: int) -> None:
    fields = [] if kind is None else [(b"Content-Type", kind)]

    assert refusal_of(ResponseHead(status, block(fields))) == expected


# --- what they usually mean

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


def test_a_401_is_explained_by_the_audience() -> None:
    text, hint = explain(401, route(), token("a@p.iam.gserviceaccount.com"))

    assert "route orders answered 401 to a token of a@p.iam.gserviceaccount.com" in text
    assert f"audience https://{URL}." in text
    assert "`audience`" in hint
    assert "secret" not in text + hint


def test_a_404_is_explained_by_the_ingress() -> None:
    text, hint = explain(404, route(), None)

    assert "route orders answered 404 with a page" in text
    assert "internal traffic only" in text
    assert "ingress" in hint


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
    text, hint = explain(403, route(), token(email))

    assert f"answered 403: {email} may lack roles/run.invoker" in text
    assert hint == (
        "gcloud run services add-iam-policy-binding orders --region=europe-west1"
        f" --member={member} --role=roles/run.invoker"
    )


@pytest.mark.parametrize("known", [None, token(None)])
def test_an_account_that_is_not_known_is_paraphrased(known: Token | None) -> None:
    text, _ = explain(403, route(), known)

    assert "the account of these credentials may lack" in text


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
    ("status", "said", "advice"),
    [
        (401, "answered 401 to an access token of a@b.c.", "clock"),
        (403, "answered 403 to an access token of a@b.c for s1 s2.", "`scopes`"),
        (404, "answered 404 to an access token of a@b.c, with a page.", "`upstream`"),
    ],
)
def test_refusals_of_an_api_are_no_matter_of_cloud_run(status: int, said: str, advice: str) -> None:
    api = dataclasses.replace(route(), auth=Auth.ACCESS_TOKEN, scopes=("s1", "s2"))

    text, hint = explain(status, api, token("a@b.c"))
    assert said in text
    assert advice in hint
    assert "run.invoker" not in text + hint
