"""What `doctor` makes of the refusals of Google's APIs, whose answers are JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.doctor.call import Call
from proxy.doctor.findings import Outcome
from proxy.doctor.request import Question
from proxy.doctor.verdict import judge
from proxy.identity.token import Token
from tests.unit.doctor.patients import NOW, answer, patient

HOST = "storage.googleapis.com"
ACCOUNT = "caller@project.iam.gserviceaccount.com"


def error(status: str, message: str, reason: str = "", **metadata: str) -> str:
    """Return an error as Google's APIs write it."""
    info = [{"reason": reason, "domain": "googleapis.com", "metadata": metadata}] if reason else []
    return json.dumps({"error": {"message": message, "status": status, "details": info}}, indent=2)


def call(status: int, body: str) -> Call:
    return Call(
        route=patient("auth: access_token", f"https://{HOST}"),
        question=Question(),
        answer=answer(status, body, **{"content-type": "application/json"}),
        token=Token(value="ya29.secret", expires_at=NOW + 3599, email=ACCOUNT),
        account=ACCOUNT,
        source="f",
    )


@pytest.mark.parametrize(
    ("status", "body", "reason", "why", "command"),
    [
        (
            401,
            error("UNAUTHENTICATED", "Request had invalid credentials", "ACCESS_TOKEN_EXPIRED"),
            "token_refused",
            "The API does not accept the access token. Request had invalid credentials.",
            "date",
        ),
        (401, "", "token_refused", "The API does not accept the access token.", "date"),
        (
            403,
            error("PERMISSION_DENIED", "It is off", "SERVICE_DISABLED", service="x.googleapis.com"),
            "api_disabled",
            "It is off.",
            "gcloud services enable x.googleapis.com",
        ),
        (
            403,
            error("PERMISSION_DENIED", "It is off", "SERVICE_DISABLED", service="$(evil)"),
            "api_disabled",
            "It is off.",
            f"gcloud services enable {HOST}",
        ),
        (
            403,
            error("PERMISSION_DENIED", "No scope", "ACCESS_TOKEN_SCOPE_INSUFFICIENT"),
            "scope_insufficient",
            "lacks a scope. No scope.",
            "doctor",
        ),
        (
            403,
            error("PERMISSION_DENIED", "The x API requires a quota project, which is not set"),
            "quota_project_missing",
            "on which project",
            "set-quota-project",
        ),
        (
            403,
            error("PERMISSION_DENIED", "storage.objects.get denied", "IAM_PERMISSION_DENIED"),
            "permission_denied",
            f"{ACCOUNT} may not do this. storage.objects.get denied.",
            "Authorization: Bearer $(cloud-run-auth-proxy token a --config f)",
        ),
        (403, "no JSON", "permission_denied", f"{ACCOUNT} may not do this.", "curl"),
    ],
)
def test_a_refusal_is_explained_by_its_reason(
    status: int, body: str, reason: str, why: str, command: str
) -> None:
    found = judge(call(status, body))

    assert found.outcome is Outcome.FAILED
    assert found.advice is not None
    assert found.advice.reason == reason
    assert why in found.advice.why
    assert command in found.advice.command
    assert "ya29.secret" not in f"{found}"


@pytest.mark.parametrize("said", ['"message": "ya29.foreign-token-01 is bad"', '"message": "'])
def test_what_an_api_says_is_shown_without_secrets(said: str) -> None:
    advice: Any = judge(call(403, said)).advice

    assert "foreign-token" not in advice.why


def test_an_api_without_a_page_at_its_root_is_reached() -> None:
    assert judge(call(404, "<title>Error 404 (Not Found)!!1</title>")).outcome is Outcome.OK
