"""What a person reads when a call fails: the same words from the proxy, its log and doctor."""

from __future__ import annotations

import asyncio
import json
import math
import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from proxy.emulator.faults import Answer
from proxy.emulator.metadata import MetadataServer
from proxy.plane.trust import NO_ROOTS
from proxy.unreached import (
    CHECK_CONNECT_TO,
    CHECK_DNS,
    CHECK_NAME,
    CHECK_PROXY,
    CHECK_SERVICE,
    CHECK_SOCKET,
    NO_TLS,
)
from tests.fakes import sessions
from tests.fakes.doctoring import DOMAIN, Doctor, plain
from tests.fakes.program import Program

pytestmark = pytest.mark.skipif(
    os.environ.get("TESTED_BUILD") == "compiled",
    reason="who dials and who explains is not compiled",
)

AT = f"https://{DOMAIN}"


@pytest.fixture
async def doctor(metadata: MetadataServer, tmp_path: Path) -> AsyncIterator[Doctor]:
    async with AsyncExitStack() as stack:
        yield Doctor(metadata, tmp_path, stack)


async def complaining(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer what is no request as most servers of plain HTTP do."""
    await reader.read(1)
    writer.write(plain(400))
    await writer.drain()


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


async def problems(
    doctor: Doctor, routes: dict[str, Any], **env: str
) -> tuple[dict[str, Any], Program]:
    """Call each of the routes through a proxy; return what it answers, and the proxy's log."""
    document = {
        "listen": "127.0.0.1:0",
        "admin": "127.0.0.1:0",
        "routes": {name: {"path": f"/{name}", **route} for name, route in routes.items()},
    }
    found: dict[str, Any] = {}
    async with (
        Program(json.dumps(document), env={**doctor.machine, **env}) as proxy,
        sessions.session() as session,
    ):
        for name in routes:
            async with session.get(f"{proxy.url}/{name}") as response:
                found[name] = json.loads(await response.read())
    return found, proxy


async def test_the_proxy_its_log_and_doctor_have_the_same_words(
    doctor: Doctor, tmp_path: Path
) -> None:
    dead, gone = free_port(), tmp_path / "gone.sock"
    http = await doctor.serve(complaining)
    secure = await doctor.answering(plain(200))
    refused = f"Nothing listens at 127.0.0.1:{dead} (connection refused)."
    absent = f"There is no socket unix:{gone} (no such file)."
    unreached = (
        f"The egress proxy http://127.0.0.1:{dead} cannot be connected: "
        "connection refused: nothing listens there."
    )
    unknown = (
        f"The certificate of {AT}:{secure} is not accepted: unable to get local issuer certificate."
    )
    temporary = "(Temporary failure in name resolution)."
    # Route: its upstream and more, what the proxy says, what doctor says, and both advise.
    told: dict[str, tuple[dict[str, Any], str, str, str]] = {
        "refused": ({"upstream": f"http://127.0.0.1:{dead}"}, refused, refused, CHECK_SERVICE),
        "elsewhere": (
            {"upstream": AT, "connect_to": f"127.0.0.1:{dead}"},
            refused.replace(" (", f", where {AT} is dialled ("),
            refused,
            CHECK_CONNECT_TO,
        ),
        "socket": (
            {"upstream": AT, "connect_to": f"unix:{gone}"},
            absent.replace(" (", f", where {AT} is dialled ("),
            absent,
            CHECK_SOCKET,
        ),
        "egress": (
            {"upstream": AT, "egress_proxy": f"http://127.0.0.1:{dead}"},
            unreached,
            refused,
            CHECK_PROXY,
        ),
        "plain": (
            {"upstream": f"{AT}:{http}"},
            f"What listens at {DOMAIN}:{http} does not speak TLS.",
            f"What listens at {DOMAIN}:{http} does not speak TLS.",
            NO_TLS,
        ),
        "name": (
            {"upstream": "https://no-such-name.invalid"},
            "The name no-such-name.invalid does not exist (Name or service not known).",
            "The name no-such-name.invalid does not exist (Name or service not known).",
            CHECK_NAME,
        ),
        "dns": (
            {"upstream": "https://nobody.example.com"},
            f"No name server has answered for nobody.example.com {temporary}",
            f"No name server has answered for nobody.example.com {temporary}",
            CHECK_DNS,
        ),
        "roots": (
            {"upstream": f"{AT}:{secure}"},
            unknown,
            "No authority that is trusted here has issued the certificate",
            NO_ROOTS,
        ),
    }
    nowhere = {"SSL_CERT_FILE": str(tmp_path / "none"), "SSL_CERT_DIR": str(tmp_path / "none")}
    routes = {name: {"auth": "none", **row[0]} for name, row in told.items()}

    answers, proxy = await problems(doctor, routes, **nowhere)
    seen = await doctor.examine(routes, env=nowhere)

    assert {name: answer["detail"] for name, answer in answers.items()} == {
        name: detail for name, (_, detail, _, _) in told.items()
    }
    assert {name: answer["hint"] for name, answer in answers.items()} == {
        name: hint for name, (*_, hint) in told.items()
    }
    logged = {r["route"]: r for r in proxy.records() if r.get("logger") == "proxy.access"}
    for name, answer in answers.items():
        assert logged[name]["message"].endswith(f"{answer['reason']}: {answer['detail']}")
        assert logged[name]["hint"] == answer["hint"]
    failed = {
        name: next(step for step in route["steps"] if step["outcome"] == "failed")
        for name, route in seen.routes.items()
    }
    for name, (_, _, why, _) in told.items():
        assert failed[name]["why"].startswith(why)
    assert {name: step["fix"] for name, step in failed.items() if name != "roots"} == {
        name: hint for name, (*_, hint) in told.items() if name != "roots"
    }
    assert failed["dns"]["reason"] == "dns_unanswered"
    assert "no roots to verify certificates with" in failed["roots"]["fix"]


async def test_the_metadata_servers_whole_sentence_is_in_the_error_and_the_log(
    doctor: Doctor,
) -> None:
    said = "the annotation iam.gke.io/gcp-service-account is missing on default/orders"
    doctor.metadata.inject(Answer(status=404, body=said, content_type="text/plain"), times=math.inf)

    answers, proxy = await problems(
        doctor, {"pod": {"upstream": "https://127.0.0.1:1", "auth": "id_token"}}
    )

    assert answers["pod"]["reason"] == "token_unavailable"
    assert said in answers["pod"]["detail"]
    assert "kubectl annotate serviceaccount" in answers["pod"]["hint"]
    early = next(r for r in proxy.records() if r["message"].startswith("no token yet"))
    assert said in early["message"]


async def test_who_speaks_tls_to_the_listener_is_told_to_call_http(doctor: Doctor) -> None:
    document = {
        "listen": "127.0.0.1:0",
        "admin": "127.0.0.1:0",
        "routes": {"a": {"upstream": AT, "auth": "none"}},
    }
    async with Program(json.dumps(document), env=doctor.machine) as proxy:
        context = ssl.create_default_context()
        with socket.create_connection(proxy.address) as sock, pytest.raises(ssl.SSLError):
            context.wrap_socket(sock, server_hostname="localhost")
        line = await proxy.record(reason="request_malformed")

    assert line["message"] == (
        "no request → 400 request_malformed: The caller speaks TLS, and this listener plain HTTP."
    )
    assert line["hint"].startswith("Call http:// instead of https://")
