"""Which language a caller is answered in, and what holds for all of them."""

from __future__ import annotations

import json

import pytest

from proxy.config.model import ErrorFormat
from proxy.dialects import render
from proxy.errors import REASONS
from tests.fakes.calling import ANSWERED, SECRET, Request, failure, fields_of

RPC = b'{"jsonrpc": "2.0", "id": 1}'

MEMBERS = {
    "problem": "type",
    "jsonrpc": "jsonrpc",
    "trpc": "error",
    "connect": "message",
    "twirp": "msg",
}
"""By which of its members an object gives its language away, in this order."""


def language_of(body: bytes) -> str:
    """Return the language that an answer is in."""
    if body[0] == 0x80:
        return "grpc_web"
    if body[0] == 0x02:
        return "connect stream"
    said = json.loads(body)
    return next(name for name in MEMBERS if MEMBERS[name] in said)


@pytest.mark.parametrize(
    ("request_", "language"),
    [
        (Request(), "problem"),
        (Request(method="GET"), "problem"),
        (Request(kind="application/json"), "problem"),
        (Request("/trpcs/x?batched=1"), "problem"),
        (Request("/trpc/a.b"), "trpc"),
        (Request("/api/trpc/a.b,c?batch=1"), "trpc"),
        (Request("/x?y=1&input=%7B%7D"), "trpc"),
        (Request(trpc_accept="application/jsonl"), "trpc"),
        (Request(x_trpc_source="react"), "trpc"),
        (Request(kind="application/connect+proto"), "connect stream"),
        (Request(kind="application/connect+json; charset=utf-8"), "connect stream"),
        (Request(kind="application/json", connect_protocol_version="1"), "connect"),
        (Request(kind="application/proto", connect_protocol_version="1"), "connect"),
        (Request("/a.B/C?connect=v1&encoding=json&message=%7B%7D", method="GET"), "connect"),
        (Request("/a.B/C?message=&connect=v1", method="GET"), "connect"),
        (Request("/a.B/C?connect=v12", method="GET"), "problem"),
        (Request("/a.B/C?connect=v1"), "problem"),
        (Request(kind="application/grpc-web"), "grpc_web"),
        (Request(kind="Application/gRPC-Web+proto"), "grpc_web"),
        (Request("/twirp/a.b.C/D", kind="application/json"), "twirp"),
        (Request("/v1/twirp/C/D", kind="application/protobuf"), "twirp"),
        (Request("/twirp/C/D?x=/twirp/", kind="application/json"), "twirp"),
        (Request("/twirp/C/D", method="GET"), "problem"),
        (Request("/twirp/C", method="POST"), "problem"),
        (Request("/twirps/C/D"), "problem"),
        (Request(kind="application/json-rpc"), "jsonrpc"),
        (Request(kind="application/json", body=RPC), "jsonrpc"),
        (Request(kind="application/json", body=b'{"jsonrpc": 2}'), "problem"),
        (Request(kind="application/json", body=b'"jsonrpc"'), "problem"),
        (Request(kind="text/plain", body=RPC), "problem"),
    ],
)
def test_a_caller_is_recognised(request_: Request, language: str) -> None:
    assert language_of(render(failure(), request_).body) == language


def test_the_text_variant_of_grpc_web_is_recognised() -> None:
    answer = render(failure(), Request(kind="application/grpc-web-text+proto"))

    assert fields_of(answer)["content-type"] == "application/grpc-web-text+proto"


@pytest.mark.parametrize("language", ["problem", "trpc", "connect", "grpc_web", "twirp", "jsonrpc"])
def test_what_the_route_says_wins(language: str) -> None:
    caller = Request("/trpc/x", language=ErrorFormat(language))

    assert language_of(render(failure(), caller).body) == language


LANGUAGES = {
    "problem": {"language": ErrorFormat.PROBLEM},
    "trpc": {"language": ErrorFormat.TRPC},
    "connect": {"language": ErrorFormat.CONNECT},
    "connect stream": {"kind": "application/connect+proto"},
    "grpc_web": {"language": ErrorFormat.GRPC_WEB},
    "grpc_web text": {"kind": "application/grpc-web-text"},
    "twirp": {"language": ErrorFormat.TWIRP},
    "jsonrpc": {"language": ErrorFormat.JSONRPC},
}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("reason", ANSWERED)
class TestEveryReasonInEveryLanguage:
    def test_names_the_reason_in_a_field_and_is_not_kept(self, reason: str, language: str) -> None:
        answer = render(failure(reason), Request(**LANGUAGES[language]))  # type: ignore[arg-type]  # one of several

        fields = fields_of(answer)
        assert fields["x-auth-proxy-error"] == reason
        assert fields["cache-control"] == "no-store"
        assert fields["content-length"] == str(len(answer.body))
        assert "retry-after" not in fields

    def test_has_the_status_of_the_reason_or_that_of_the_protocol(
        self, reason: str, language: str
    ) -> None:
        answer = render(failure(reason), Request(**LANGUAGES[language]))  # type: ignore[arg-type]  # one of several

        always_ok = language.startswith("grpc_web") or language == "connect stream"
        assert answer.status == (200 if always_ok else REASONS[reason].status)

    def test_says_when_to_come_again(self, reason: str, language: str) -> None:
        error = failure(reason, retry_after=3)

        answer = render(error, Request(**LANGUAGES[language]))  # type: ignore[arg-type]  # one of several

        assert fields_of(answer)["retry-after"] == "3"

    def test_repeats_nothing_secret_of_the_request(self, reason: str, language: str) -> None:
        caller = Request(
            f"/x?token={SECRET}",
            authorization=f"Bearer {SECRET}",
            x_serverless_authorization=f"Bearer {SECRET}",
            body=SECRET.encode(),
            **LANGUAGES[language],  # type: ignore[arg-type]  # one of several
        )

        answer = render(failure(reason), caller)

        assert SECRET not in answer.body.decode("latin-1") + str(answer.fields)
