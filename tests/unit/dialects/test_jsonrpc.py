"""JSON-RPC's errors, and whose request they answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.dialects import jsonrpc
from proxy.errors import REASONS
from tests.fakes.calling import ANSWERED, Request, failure, fields_of


def asked(said: Any) -> Any:
    """Return what answers a request with this body."""
    body = said if isinstance(said, bytes) else json.dumps(said).encode()
    answer = jsonrpc.answer(failure(), Request(kind="application/json-rpc", body=body))
    return json.loads(answer.body)


def request(**more: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": "sum", **more}


@pytest.mark.parametrize("reason", ANSWERED)
def test_every_reason_is_a_response_at_its_status(reason: str) -> None:
    error = failure(reason)

    answer = jsonrpc.answer(error, Request(kind="application/json-rpc"))

    said = json.loads(answer.body)
    assert fields_of(answer)["content-type"] == "application/json"
    assert answer.status == REASONS[reason].status
    assert (said["jsonrpc"], said["id"], set(said)) == ("2.0", None, {"jsonrpc", "error", "id"})
    assert said["error"]["code"] == -32000
    assert said["error"]["message"].endswith(f"[{reason}]")
    assert said["error"]["data"] == {
        "reason": reason,
        "status": REASONS[reason].status,
        "route": "orders",
        "hint": error.hint,
    }


@pytest.mark.parametrize("number", [0, 7, -1, 2**70, "", "a", 'grüße "1"', "\ud800"])
def test_the_id_of_the_request_is_echoed(number: str | int) -> None:
    assert asked(request(id=number))["id"] == number


@pytest.mark.parametrize("number", [None, True, 1.5, [1], {"a": 1}])
def test_an_id_that_is_none_is_null(number: object) -> None:
    assert asked(request(id=number))["id"] is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'{"jsonrpc": "2.0", "id": 1',
        b'{"jsonrpc": "1.0", "id": 1}',
        b'{"jsonrpc": "2.0"}',
        b'["jsonrpc"]',
        b'{"jsonrpc": "2.0", "id": ' + b"9" * 5000 + b"}",
        b'{"jsonrpc":' + b"[" * 60_000,
        b'\xff"jsonrpc"',
    ],
)
def test_a_request_that_cannot_be_read_has_the_id_null(body: bytes) -> None:
    assert asked(body)["id"] is None


def test_a_batch_gets_a_response_for_each_of_its_requests() -> None:
    said = asked([request(id=1), request(), request(id="b"), 5, {"id": 3}])

    assert [one["id"] for one in said] == [1, "b"]
    assert {one["error"]["code"] for one in said} == {-32000}


def test_a_batch_of_notifications_gets_one_response() -> None:
    assert asked([request(), request()])["id"] is None


@pytest.mark.parametrize(("size", "answers"), [(99, 99), (100, 100), (101, 1)])
def test_a_long_batch_gets_one_response(size: int, answers: int) -> None:
    said = asked([request(id=n) for n in range(size)])

    assert (len(said) if isinstance(said, list) else 1) == answers


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8",
                                  "application/vnd.x+json"])  # fmt: skip
def test_a_json_body_tells_the_caller(kind: str) -> None:
    body = json.dumps(request(id=1)).encode()

    assert jsonrpc.recognises(Request(kind=kind, body=body))
    assert jsonrpc.recognises(Request(kind=kind, body=b"[%b]" % body))
    assert not jsonrpc.recognises(Request(kind=kind, body=b""))
