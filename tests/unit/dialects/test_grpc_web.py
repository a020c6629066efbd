"""gRPC-Web's errors: trailers in the body."""

from __future__ import annotations

from urllib.parse import unquote

import pytest

from proxy.dialects import grpc_web
from proxy.dialects.base import sentence
from tests.fakes.calling import (
    ANSWERED,
    NUMBERS,
    Request,
    expected_code,
    failure,
    fields_of,
    web_trailers,
)


@pytest.mark.parametrize("kind", ["application/grpc-web+proto", "application/grpc-web-text"])
@pytest.mark.parametrize("reason", ANSWERED)
def test_the_status_stands_in_a_frame_of_the_body(reason: str, kind: str) -> None:
    error = failure(reason)

    answer = grpc_web.answer(error, Request(kind=kind))

    trailers = web_trailers(answer)
    assert answer.status == 200
    assert set(trailers) == {"grpc-status", "grpc-message"}
    assert trailers["grpc-status"] == str(NUMBERS[expected_code(reason)])
    assert unquote(trailers["grpc-message"]) == sentence(error)
    assert "grpc-status" not in fields_of(answer)


@pytest.mark.parametrize(
    ("sent", "accepted", "answered"),
    [
        ("application/grpc-web+proto", "", "application/grpc-web+proto"),
        ("application/grpc-web", "*/*", "application/grpc-web"),
        ("application/grpc-web-text", "application/grpc-web-text", "application/grpc-web-text"),
        ("application/grpc-web", "application/grpc-web-text, */*", "application/grpc-web-text"),
        ("application/grpc-web-text", "application/grpc-web", "application/grpc-web"),
        ("application/json", "", "application/grpc-web+proto"),
        ("application/grpc", "application/grpc", "application/grpc-web+proto"),
    ],
)
def test_the_answer_has_the_type_that_is_accepted_or_else_sent(
    sent: str, accepted: str, answered: str
) -> None:
    answer = grpc_web.answer(failure(), Request(kind=sent, accept=accepted))

    assert fields_of(answer)["content-type"] == answered
    assert web_trailers(answer)["grpc-status"] == "14"


@pytest.mark.parametrize(
    "kind",
    [
        "application/grpc",
        "application/grpc+proto",
        "application/grpc-webs",
        "application/grpc-web+",
        "application/grpc-web+\xe9",
    ],
)
def test_a_type_that_is_none_of_grpc_web_is_left_to_others(kind: str) -> None:
    assert not grpc_web.recognises(Request(kind=kind))
