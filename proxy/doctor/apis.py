"""What one of Google's APIs means by refusing an access token.  Pure.

They say it in JSON (https://cloud.google.com/apis/design/errors): a status, and mostly a reason
that does not change, such as ``SERVICE_DISABLED``.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable

from proxy.doctor.call import Call, by_hand
from proxy.doctor.clock import SHOW_CLOCKS
from proxy.doctor.findings import Advice
from proxy.doctor.words import again, sentence
from proxy.redact import redact_foreign

UNAUTHORIZED, FORBIDDEN = 401, 403
REFUSALS = frozenset((UNAUTHORIZED, FORBIDDEN))
"""Statuses that are about the token, or what its account may do."""

_MESSAGE = re.compile(r'"message"\s*:\s*"((?:[^"\\]|\\.){1,400})')
_SERVICE = re.compile(r'"service"\s*:\s*"([a-z0-9-]+(?:\.[a-z0-9-]+)*)"')


def explain(call: Call) -> Advice:
    """Return what a 401 or 403 of the API means, and what to do."""
    return next(advice for rule in _RULES if (advice := rule(call)) is not None)


def _says(call: Call) -> str:
    """Return the API's own sentence, empty where it has none."""
    found = _MESSAGE.search(call.answer.body)
    return sentence(redact_foreign(found[1])) if found else ""


def _refused(call: Call) -> Advice | None:
    if call.answer.status != UNAUTHORIZED:
        return None
    return Advice(
        reason="token_refused",
        why=f"The API does not accept the access token. {_says(call)}".rstrip(),
        fix="Compare this machine's clock with another one, and look whether the account is "
        "disabled.",
        command=SHOW_CLOCKS,
    )


def _disabled(call: Call) -> Advice | None:
    if "SERVICE_DISABLED" not in call.answer.body:
        return None
    service = _SERVICE.search(call.answer.body)
    return Advice(
        reason="api_disabled",
        why=f"The API is off in the project on which the call counts. {_says(call)}".rstrip(),
        fix="It takes a few minutes after this:",
        command=f"gcloud services enable {service[1] if service else shlex.quote(call.host)}",
    )


def _scopes(call: Call) -> Advice | None:
    if "ACCESS_TOKEN_SCOPE_INSUFFICIENT" not in call.answer.body:
        return None
    return Advice(
        reason="scope_insufficient",
        why=f"The access token lacks a scope. {_says(call)}".rstrip(),
        fix="Leave the route's scopes out, whose default is enough for most APIs, or add what this "
        "one asks for. On Compute Engine the instance's own scopes bound them; a gcloud login has "
        "those that it was made with.",
        command=again("doctor", call.route, call.source),
    )


def _project(call: Call) -> Advice | None:
    if "requires a quota project" not in call.answer.body:
        return None
    return Advice(
        reason="quota_project_missing",
        why="The API wants to know on which project a person's call counts.",
        fix="Name one, or set GOOGLE_CLOUD_QUOTA_PROJECT:",
        command="gcloud auth application-default set-quota-project PROJECT",
    )


def _permission(call: Call) -> Advice:
    return Advice(
        reason="permission_denied",
        why=f"{call.who} may not do this. {_says(call)}".rstrip(),
        fix="Grant the account a role that has the permission; this shows the whole answer:",
        command=by_hand(
            call.route, call.question, again("token", call.route, call.source), call.source
        ),
    )


_RULES: tuple[Callable[[Call], Advice | None], ...] = (
    _refused,
    _disabled,
    _scopes,
    _project,
    _permission,
)
"""The first that knows an answer; the last one always does."""
