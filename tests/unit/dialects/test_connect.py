"""Connect's errors, unary and streamed."""

from __future__ import annotations

import json

import pytest

from proxy.config.model import ErrorFormat
from proxy.dialects import connect
from proxy.errors import REASONS
from tests.fakes.calling import (
    ANSWERED,
    Request,
    expected_code,
    failure,
    fields_of,
    frames,
)


@pytest.mark.parametrize("kind", ["application/proto", "application/json", ""])
@pytest.mark.parametrize("reason", ANSWERED)
def test_a_unary_call_gets_json_at_the_status_of_the_reason(reason: str, kind: str) -> None:
    answer = connect.answer(failure(reason), Request(kind=kind, connect_protocol_version="1"))

    said = json.loads(answer.body)
    assert fields_of(answer)["content-type"] == "application/json"
    assert answer.status == REASONS[reason].status
    assert set(said) == {"code", "message"}
    assert said["code"] == expected_code(reason).lower()
    assert said["message"].endswith(f"[{reason}]")


@pytest.mark.parametrize("reason", ANSWERED)
def test_a_stream_gets_its_end_in_an_envelope(reason: str) -> None:
    answer = connect.answer(failure(reason), Request(kind="application/connect+proto"))

    [(flags, data)] = frames(answer.body)
    said = json.loads(data)
    assert (answer.status, flags) == (200, 0x02)
    assert said["error"]["code"] == expected_code(reason).lower()
    assert said["error"]["message"].endswith(f"[{reason}]")
    assert set(said) == {"error"}


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        ("application/connect+proto", "application/connect+proto"),
        ("Application/Connect+JSON; charset=utf-8", "application/connect+json"),
    ],
)
def test_a_stream_is_answered_in_its_own_type(sent: str, answered: str) -> None:
    answer = connect.answer(failure(), Request(kind=sent))

    assert fields_of(answer)["content-type"] == answered


@pytest.mark.parametrize(
    "kind",
    [
        "application/connect",
        "application/connect+",
        "application/connect+a\xe9",
        f"application/connect+{'x' * 41}",
    ],
)
def test_a_type_that_is_none_of_connect_is_not_repeated(kind: str) -> None:
    caller = Request(kind=kind, language=ErrorFormat.CONNECT)

    assert not connect.recognises(caller)
    assert fields_of(connect.answer(failure(), caller))["content-type"] == "application/json"
