"""tRPC's error envelope."""

from __future__ import annotations

import json

import pytest

from proxy.dialects import trpc
from proxy.errors import REASONS
from tests.fakes.calling import ANSWERED, TRPC_KEYS, Request, failure, fields_of


@pytest.mark.parametrize("reason", ANSWERED)
def test_every_reason_has_the_key_and_number_of_its_status(reason: str) -> None:
    answer = trpc.answer(failure(reason), Request("/trpc/a.b?batch=1"))

    error = json.loads(answer.body)["error"]
    status = REASONS[reason].status
    assert fields_of(answer)["content-type"] == "application/json"
    assert (error["data"]["code"], error["code"]) == TRPC_KEYS[status]
    assert error["data"]["httpStatus"] == answer.status == status
    assert error["message"].endswith(f"[{reason}]")


def test_a_batch_gets_one_object_that_names_all_its_calls() -> None:
    said = json.loads(trpc.answer(failure(), Request("/trpc/a.b,c%2Ed?batch=1")).body)

    assert isinstance(said, dict)
    assert said["error"]["data"]["path"] == "a.b,c.d"


def test_a_transformer_finds_a_copy_of_the_error() -> None:
    error = json.loads(trpc.answer(failure(), Request("/trpc/a")).body)["error"]

    assert error.pop("json") == error


@pytest.mark.parametrize(("hint", "end"), [("Do this.", "y. Do this. [internal_error]"),
                                           ("", "y [internal_error]")])  # fmt: skip
def test_the_message_is_all_that_a_person_needs(hint: str, end: str) -> None:
    error = failure("internal_error", hint=hint)

    message = json.loads(trpc.answer(error, Request()).body)["error"]["message"]

    assert message.startswith('The proxy has a bug: It said "no"')
    assert message.endswith(end)
