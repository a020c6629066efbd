"""Routes, tokens and calls as the doctor's rules see them."""

from __future__ import annotations

from typing import Any

from proxy.config.model import Route
from proxy.doctor.answers import Answer
from proxy.doctor.call import Call
from proxy.doctor.request import Question
from proxy.emulator.pages import Page
from proxy.identity.token import Token
from tests.unit.config.reading import route as read_route

NOW = 1_800_000_000.0
URL = "https://orders-123456789012.us-central1.run.app"
HASHED = "https://orders-abc123-uc.a.run.app"
CALLER = "caller@project.iam.gserviceaccount.com"


def patient(keys: str = "", upstream: str = URL) -> Route:
    """Return a route with these keys, in flow style."""
    return read_route(f"upstream: {upstream}" + (f", {keys}" if keys else ""))


def token(route: Route, **claims: Any) -> Token:
    """Return a token for the route that was issued a minute ago."""
    said = {
        "aud": route.first.audience,
        "iat": NOW - 60,
        "exp": NOW + 3540,
        "email": CALLER,
        **claims,
    }
    return Token(value="secret", expires_at=said["exp"], email=said["email"], claims=said)


def answer(status: int, body: str = "", **fields: str) -> Answer:
    """Return an answer that took no time; ``_`` stands for ``-`` in names."""
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    return Answer(status, named, body, received_at=NOW)


def front(status: int, **fields: str) -> Answer:
    """Return an answer of Google's front end; the robot's where a status has no other page."""
    return paged(Page(status, robot=status in (400, 413)), **fields)


def paged(page: Page, **fields: str) -> Answer:
    """Return an answer with one of the front end's pages."""
    head, _, body = page.render("/", now=NOW).decode().partition("\r\n\r\n")
    lines = [line.split(": ", 1) for line in head.split("\r\n")[1:]]
    found = {name.lower(): value for name, value in lines if name != "Date"}
    return Answer(page.status, {**found, **answer(0, **fields).fields}, body, received_at=NOW)


def call(route: Route, to: Answer, **more: Any) -> Call:
    """Return a call through `route`, with a token unless told otherwise."""
    made: dict[str, Any] = {"token": token(route), "account": CALLER, "question": Question()}
    return Call(route=route, answer=to, **{**made, **more})
