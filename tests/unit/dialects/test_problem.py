"""Problem Details (RFC 9457) with the member that a tRPC caller needs."""

from __future__ import annotations

import json

import pytest

from proxy.dialects import problem
from proxy.dialects.base import sentence
from proxy.errors import REASONS, TokenUnavailable
from tests.fakes.calling import ANSWERED, Request, failure, fields_of


@pytest.mark.parametrize("reason", ANSWERED)
def test_a_problem_has_all_its_members(reason: str) -> None:
    error = failure(reason)

    answer = problem.answer(error, Request("/a/b?secret=1"))

    said = json.loads(answer.body)
    assert fields_of(answer)["content-type"] == "application/problem+json"
    assert set(said) == {
        "type", "title", "status", "detail", "reason", "route", "hint", "error",
    }  # fmt: skip
    assert said["type"].endswith(f":{reason}")
    assert said["status"] == answer.status == REASONS[reason].status
    assert (said["title"], said["detail"]) == (error.title, error.detail)
    assert (said["reason"], said["route"], said["hint"]) == (reason, "orders", error.hint)


@pytest.mark.parametrize("reason", ANSWERED)
def test_only_a_refused_method_is_told_which_are_supported(reason: str) -> None:
    said = fields_of(problem.answer(failure(reason), Request("/"))).get("allow", "")

    supported = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
    assert said.split(", ") == (supported if reason == "method_not_allowed" else [""])


@pytest.mark.parametrize(
    ("detail", "hint", "text"),
    [
        ("no answer", "Ask again.", "no answer. Ask again."),
        ("No answer.", "Ask again.", "No answer. Ask again."),
        ("no answer", "", "no answer"),
    ],
)
def test_what_happened_and_what_helps_are_two_sentences(detail: str, hint: str, text: str) -> None:
    error = TokenUnavailable(detail, hint=hint)

    assert sentence(error) == f"No token could be obtained: {text} [token_unavailable]"


def test_a_trpc_client_that_was_not_recognised_finds_its_error_in_it() -> None:
    said = json.loads(problem.answer(failure(), Request("/api/a.b")).body)

    plain = {key: said["error"][key] for key in ("message", "code", "data")}
    assert said["error"]["json"] == plain
    assert plain["data"] == {"code": "SERVICE_UNAVAILABLE", "httpStatus": 503, "path": "a.b"}
    assert "token_unavailable" in plain["message"]
