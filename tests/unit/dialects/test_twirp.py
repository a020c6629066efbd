"""Twirp's errors."""

from __future__ import annotations

import json

import pytest

from proxy.dialects import twirp
from proxy.errors import REASONS
from tests.fakes.calling import ANSWERED, TWIRP_CODES, Request, expected_code, failure, fields_of


@pytest.mark.parametrize("reason", ANSWERED)
def test_every_reason_has_its_code_at_its_status(reason: str) -> None:
    error = failure(reason)

    answer = twirp.answer(error, Request("/twirp/a.B/C"))

    said = json.loads(answer.body)
    assert fields_of(answer)["content-type"] == "application/json"
    assert answer.status == REASONS[reason].status
    assert set(said) == {"code", "msg", "meta"}
    assert said["code"] == TWIRP_CODES.get(reason, expected_code(reason).lower())
    assert said["msg"].endswith(f"[{reason}]")
    assert said["meta"] == {"reason": reason, "route": "orders", "hint": error.hint}
