"""`doctor` as an engineer runs it: the installed command, against upstreams that are ill."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from proxy import __version__
from proxy.clock import Clocks
from proxy.emulator.claims import CALLER
from proxy.emulator.faults import Answer, Held, Minted
from proxy.emulator.google import TokenServices
from proxy.emulator.metadata import MetadataServer
from proxy.emulator.pages import INVALID_TOKEN, Page
from tests.fakes.child import Child, plain_environment
from tests.fakes.doctoring import (
    DOMAIN,
    HASHED,
    NAMES,
    RUN_APP,
    Doctor,
    Route,
    page,
    plain,
    silent,
)
from tests.fakes.program import COMMAND, command
from tests.fakes.tls import HTTP2, foreign_authority, server_context


@pytest.fixture
async def doctor(metadata: MetadataServer, tmp_path: Path) -> AsyncIterator[Doctor]:
    """The command, with tokens of `metadata`."""
    async with AsyncExitStack() as stack:
        yield Doctor(metadata, tmp_path, stack)


def account(doctor: Doctor) -> str:
    assert doctor.metadata.account is not None
    return doctor.metadata.account.email


# --- all is well


async def test_a_route_that_works_is_shown_step_by_step(doctor: Doctor) -> None:
    service, port = await doctor.private()
    service.audiences = (f"https://{RUN_APP}:{port}",)

    done = await doctor.run({"orders": doctor.to(RUN_APP, port)})

    assert (done.code, done.err) == (0, "")
    heading, carried, *lines = done.out.splitlines()
    assert heading == f"orders → https://{RUN_APP}:{port}"
    assert carried == "  (ID token in X-Serverless-Authorization)"
    assert [line.split()[1] for line in lines if line.startswith("  ✓ ")] == [
        "credentials", "account", "token", "DNS", "TCP", "TLS", "request", "clock",
    ]  # fmt: skip
    text = done.out
    assert f"✓ credentials   metadata server at {doctor.metadata.host}\n" in text
    assert "GOOGLE_APPLICATION_CREDENTIALS is not set\n" in text
    assert "no gcloud login in ~/.config/gcloud/application_default_credentials.json\n" in text
    assert f"✓ account       {account(doctor)}\n" in text
    assert "✓ token         expires in 59 min " in text
    assert f"aud    https://{RUN_APP}:{port}\n" in text
    assert f"email  {account(doctor)}\n" in text
    assert "✓ DNS           127.0.0.1 (in " in text
    assert f"✓ TCP           127.0.0.1:{port} (in " in text
    assert "✓ TLS           TLSv1.3, HTTP/1.1, certificate verified\n" in text
    assert "issuer   trustme" in text
    assert "✓ request       GET / → 200 OK in " in text
    assert "answered by the service (server: " in text
    assert lines[-1] == "The route works."
    assert all(len(line) <= 100 for line in lines)


async def test_the_report_for_machines_has_stable_keys(doctor: Doctor) -> None:
    service, port = await doctor.private()
    service.audiences = (f"https://{RUN_APP}:{port}",)

    seen = await doctor.examine({"orders": doctor.to(RUN_APP, port)})

    report = json.loads(seen.done.out)
    assert set(report) == {"version", "ok", "routes"}
    assert report["version"] == __version__
    route = seen.routes["orders"]
    assert {key: value for key, value in route.items() if key != "steps"} == {
        "name": "orders",
        "upstream": f"https://{RUN_APP}:{port}",
        "auth": "id_token",
        "audience": f"https://{RUN_APP}:{port}",
        "scopes": None,
        "header": "X-Serverless-Authorization",
        "credentials": "auto",
        "ok": True,
    }
    keys = {"step", "outcome", "text", "notes", "reason", "why", "fix", "command", "facts"}
    assert all(set(step) == keys for step in route["steps"])
    assert {step["step"]: set(step["facts"]) for step in route["steps"]} == {
        "credentials": {"source", "host"},
        "account": {"email"},
        "token": {"aud", "email", "issued_at", "expires_at", "expires_in"},
        "dns": {"addresses", "seconds"},
        "tcp": {"address", "port", "seconds"},
        "tls": {
            "version", "alpn", "verified", "subject", "issuer", "names", "not_before", "not_after",
        },
        "request": {"method", "path", "status", "seconds", "server", "answered_by"},
        "clock": {"skew_seconds"},
    }  # fmt: skip
    token = seen.step("orders", "token")["facts"]
    assert token["expires_at"] - token["issued_at"] == 3600
    assert 3500 < token["expires_in"] <= 3600


async def test_a_route_without_a_token_is_examined_without_one(doctor: Doctor) -> None:
    port = await doctor.answering(plain(200), tls=False)

    seen = await doctor.examine({"search": {"upstream": f"http://127.0.0.1:{port}"}})

    assert seen.outcomes("search") == {
        "token": "skipped", "dns": "skipped", "tcp": "ok", "tls": "skipped", "request": "ok",
    }  # fmt: skip
    assert doctor.metadata.requests == []


async def test_the_request_is_the_one_that_the_proxy_would_send(doctor: Doctor) -> None:
    service, port = await doctor.private()
    base = doctor.to(RUN_APP, port, header="Authorization", set_headers={"X-Api-Key": "k"})
    service.audiences = (f"https://{RUN_APP}:{port}",)
    route = {**base, "upstream": f"{base['upstream']}/v1"}

    seen = await doctor.examine({"orders": route}, "--path", "/a%2Fb?key=1", "--method", "post")

    (request,) = service.requests
    assert (request.method, request.target) == ("POST", "/v1/a%2Fb?key=1")
    assert request.header("x-api-key") == ["k"]
    assert len(request.header("authorization")) == 1
    assert request.header("x-serverless-authorization") == []
    shown = seen.step("orders", "request")
    assert (shown["facts"]["method"], shown["facts"]["path"]) == ("POST", "/a%2Fb")
    assert "key=1" not in seen.done.out


async def test_what_the_service_says_is_no_failure_of_the_route(doctor: Doctor) -> None:
    location = "Location: https://login.example.com/x?ticket=SECRET"
    routes = {
        name: doctor.to(RUN_APP, await doctor.answering(response))
        for name, response in {
            "empty": plain(204),
            "moved": plain(302, "", location),
            "missing": plain(404, '{"error": "no such page"}'),
            "unfit": plain(405),
            "page": plain(404, "<h1>Not found</h1>", "Content-Type: text/html"),
        }.items()
    }

    seen = await doctor.examine(routes)

    assert seen.done.code == 0
    assert "SECRET" not in seen.done.out
    assert (
        "a redirect to login.example.com: the proxy passes it on"
        in seen.step("moved", "request")["notes"]
    )
    assert "try --path and --method" in seen.step("missing", "request")["notes"][1]


# --- Google's own answers


async def test_an_account_that_may_not_call_gets_the_command_that_lets_it(doctor: Doctor) -> None:
    service, port = await doctor.private(invokers=[])
    service.audiences = (f"https://{RUN_APP}:{port}", f"https://{HASHED}:{port}")

    routes = {"orders": doctor.to(RUN_APP, port), "hashed": doctor.to(HASHED, port)}
    done = await doctor.run(routes)
    seen = await doctor.examine(routes)

    grant = (
        "gcloud run services add-iam-policy-binding orders --region=us-central1 "
        f"--member=serviceAccount:{account(doctor)} --role=roles/run.invoker"
    )
    assert done.code == 1
    # The command stands whole on its line, to be copied.
    assert f"run  {grant}\n" in done.out
    assert "  ✗ request       GET / → 403 Forbidden in " in done.out
    assert done.out.splitlines()[-1] == "All 2 routes fail."
    request = seen.step("orders", "request")
    assert (request["reason"], request["command"]) == ("not_invoker", grant)
    assert request["why"].startswith(f"{account(doctor)} may not call the service")
    assert request["facts"]["answered_by"] == "google"
    unknown = seen.step("hashed", "request")
    assert "SERVICE --region=REGION" in unknown["command"]
    assert "`gcloud run services list | grep orders-abc123-uc` shows" in unknown["fix"]


async def test_each_way_of_refusing_a_token_is_told_apart(doctor: Doctor) -> None:
    service, port = await doctor.private()
    service.audiences = ("https://own.example.net",)
    _, private = await doctor.private()
    late = await doctor.answering(page(401, INVALID_TOKEN, late=2.5 * 3600))
    early = await doctor.answering(page(401, INVALID_TOKEN, late=-600))
    plain_401 = await doctor.answering(page(401))
    routes = {
        "path": doctor.to(RUN_APP, port, audience=f"https://{RUN_APP}:{port}/v1"),
        "slash": doctor.to(HASHED, port, audience=f"https://{HASHED}/"),
        "tag": doctor.to(f"green---{HASHED}", port, audience=f"https://green---{HASHED}"),
        "bare": doctor.to(HASHED, port, audience=HASHED),
        "domain": doctor.to(DOMAIN, port),
        "other": doctor.to(RUN_APP, port, audience="https://billing.example.com"),
        "own": doctor.to(RUN_APP, plain_401),
        "expired": doctor.to(RUN_APP, late),
        "future": doctor.to(RUN_APP, early),
        "none": doctor.to(RUN_APP, private, auth="none"),
        "header": doctor.to(RUN_APP, private, header="Proxy-Authorization"),
    }

    seen = await doctor.examine(routes)

    assert seen.reasons() == {
        "path": "audience_refused",
        "slash": "audience_refused",
        "tag": "audience_refused",
        "bare": "audience_refused",
        "domain": "custom_domain",
        "other": "audience_refused",
        "own": "token_refused",
        "expired": "token_expired",
        "future": "token_not_yet_valid",
        "none": "token_not_sent",
        "header": "header_not_read",
    }
    why = {name: seen.step(name, "request")["why"] for name in routes}
    assert "has a path (/v1)" in why["path"]
    assert "ends with a slash" in why["slash"]
    assert "has a revision's tag (green---)" in why["tag"]
    assert "has no https:// before it" in why["bare"]
    assert "The service does not accept tokens for https://billing.example.com" in why["other"]
    assert re.search(r"expired (89|90) min \d+ s ago: .* is 2 h (29|30) min behind", why["expired"])
    fix = {name: seen.step(name, "request")["fix"] for name in routes}
    assert fix["path"] == (
        f"Leave the route's audience out: its default is https://{RUN_APP}:{port}."
    )
    add = f"update SERVICE --region=REGION --add-custom-audiences=https://{DOMAIN}:{port}"
    assert seen.step("domain", "request")["command"] == f"gcloud run services {add}"
    assert seen.step("other", "request")["command"] == (
        "gcloud run services describe orders --region=us-central1 --format='value(status.url)'"
    )
    assert seen.step("none", "request")["command"] == (
        f"AUTH_PROXY_AUTH=id_token cloud-run-auth-proxy doctor none --config {doctor.file}"
    )
    assert seen.step("expired", "clock")["reason"] == "clock_skew"


async def test_suspicious_audiences_are_warned_of_though_they_work(doctor: Doctor) -> None:
    service, port = await doctor.private()
    audience = f"https://{RUN_APP}:{port}/"
    service.audiences = (audience,)

    routes = {"orders": doctor.to(RUN_APP, port, audience=audience)}
    seen = await doctor.examine(routes)
    done = await doctor.run(routes)

    assert seen.done.code == 0
    warning = seen.step("orders", "configuration")
    assert (warning["outcome"], warning["reason"]) == ("warning", "audience_suspicious")
    assert "ends with a slash" in warning["why"]
    assert f"  ! configuration audience: {audience}\n" in done.out


async def test_a_service_that_only_its_network_reaches_is_explained(doctor: Doctor) -> None:
    service, port = await doctor.private()
    service.ingress = "internal"
    routes = {"orders": doctor.to(RUN_APP, port)}

    elsewhere = await doctor.examine(routes)
    in_service = await doctor.examine(routes, env={"K_SERVICE": "front"})
    in_job = await doctor.examine(routes, env={"CLOUD_RUN_JOB": "nightly"})

    steps = [seen.step("orders", "request") for seen in (elsewhere, in_service, in_job)]
    assert {step["reason"] for step in steps} == {"ingress_internal"}
    through = "--region=REGION --network=NETWORK --subnet=SUBNET --vpc-egress=all-traffic"
    ingress = "--format='value(metadata.annotations[\"run.googleapis.com/ingress\"])'"
    assert [step["command"] for step in steps] == [
        f"gcloud run services describe orders --region=us-central1 {ingress}",
        f"gcloud run services update front {through}",
        f"gcloud run jobs update nightly {through}",
    ]


async def test_each_failing_answer_is_blamed_on_who_gave_it(doctor: Doctor) -> None:
    iap = "X-Goog-IAP-Generated-Response: true"
    client = "123456789012-abc0def.apps.googleusercontent.com"
    perimeter = "Request is prohibited by organization's policy. vpcServiceControlsUniqueIdentifier"
    html = "Content-Type: text/html; charset=UTF-8"
    answers = {
        "full": page(429),
        "line": plain(429, "Rate exceeded.", "Content-Type: text/plain", "Server: Google Frontend"),
        "crashed": page(503),
        "broken": page(500),
        "slow": page(504),
        "odd": Page(400, robot=True).render("/", now=Clocks().wall(), close=True),
        "app-line": plain(429, "Rate exceeded.", "Content-Type: text/plain"),
        "app-page": page(404, ("X-Powered-By", "Express")),
        "perimeter": plain(403, f"<h1>Error: Forbidden</h1>{perimeter}: abc", html),
        "perimeter-json": plain(403, f'{{"error": {{"message": "{perimeter}: abc"}}}}'),
        "app-401": plain(401, '{"error": "no session"}'),
        "app-403": plain(403, "not yours"),
        "app-429": plain(429, '{"retry": "later"}'),
        "app-500": plain(500, "Traceback (most recent call last)"),
        "app-503": plain(503),
        "iap-login": plain(302, "", "Location: https://accounts.google.com/o/oauth2/v2/auth?x=1"),
        "iap-403": plain(403, "You don't have access", iap),
    }
    routes: dict[str, Route] = {
        name: doctor.to(RUN_APP, await doctor.answering(response))
        for name, response in answers.items()
    }
    body = f"Invalid IAP credentials: 'aud' claim (x) doesn't match expected value ({client})"
    refused = await doctor.answering(plain(401, body, iap))
    routes["iap-aud"] = doctor.to(DOMAIN, refused, header="Proxy-Authorization")

    seen = await doctor.examine(routes)

    assert seen.reasons() == {
        "full": "no_instance",
        "line": "no_instance",
        "crashed": "instance_failed",
        "broken": "instance_failed",
        "slow": "service_timed_out",
        "odd": "front_end_refused",
        "app-line": "service_refused",
        "app-page": None,
        "perimeter": "vpc_service_controls",
        "perimeter-json": "vpc_service_controls",
        "app-401": "service_refused",
        "app-403": "service_refused",
        "app-429": "service_refused",
        "app-500": "service_failed",
        "app-503": "service_failed",
        "iap-login": "iap_header_not_read",
        "iap-403": "iap_not_accessor",
        "iap-aud": "iap_audience_refused",
    }
    commands = {name: seen.step(name, "request")["command"] for name in routes}
    orders = "orders --region=us-central1"
    assert commands["full"] == f"gcloud run services update {orders} --max-instances=N"
    assert commands["crashed"] == f"gcloud run services logs read {orders} --limit=20"
    assert commands["app-500"] == commands["crashed"]
    assert commands["iap-403"] == (
        "gcloud iap web add-iam-policy-binding --resource-type=cloud-run --service=orders "
        f"--region=us-central1 --member=serviceAccount:{account(doctor)} "
        "--role=roles/iap.httpsResourceAccessor"
    )
    assert client in seen.step("iap-aud", "request")["fix"]
    assert seen.step("app-403", "request")["notes"] == [
        "answered by the service", "it says 'not yours'",
    ]  # fmt: skip


# --- on the way there


async def test_what_is_wrong_with_tls_is_told_apart(doctor: Doctor) -> None:
    async def gone(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.transport.abort()

    async def plain_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(plain(400))
        await writer.drain()

    ports = {
        "stranger": await doctor.serve(silent, server_context(*NAMES, issuer=foreign_authority())),
        "other-name": await doctor.serve(silent, server_context("other.example.com")),
        "ended": await doctor.serve(silent, server_context(*NAMES, expired=True)),
        "plain": await doctor.serve(plain_http),
        "gone": await doctor.serve(gone),
        "h1-only": await doctor.serve(silent, server_context(*NAMES)),
        "mute": await doctor.serve(silent),
    }
    routes = {name: dict(doctor.to(RUN_APP, port)) for name, port in ports.items()}
    routes["h1-only"]["protocol"] = "h2"
    # Time enough for its token on a busy machine, too.
    routes["mute"]["timeouts"] = {"connect": "2s"}

    seen = await doctor.examine(routes)

    assert seen.reasons() == {
        "stranger": "certificate_issuer_unknown",
        "other-name": "certificate_for_other_name",
        "ended": "certificate_ended",
        "plain": "tls_not_spoken",
        "gone": "tls_failed",
        "h1-only": "http2_not_offered",
        "mute": "tls_timed_out",
    }
    assert all(seen.outcomes(name)["request"] == "skipped" for name in routes)
    tls = {name: seen.step(name, "tls") for name in routes}
    assert tls["stranger"]["facts"]["issuer"] == "Nobody trusts this one"
    assert (
        f'get_server_certificate(("{RUN_APP}", {ports["stranger"]}))' in tls["stranger"]["command"]
    )
    assert tls["other-name"]["facts"]["names"] == ["other.example.com"]
    assert tls["other-name"]["why"] == (
        f"The certificate is for other.example.com, not for {RUN_APP}."
    )
    assert tls["ended"]["facts"]["verified"] is False
    assert any(note.startswith("valid    ") for note in tls["ended"]["notes"])


async def test_http2_is_seen_where_it_is_offered(doctor: Doctor) -> None:
    port = await doctor.answering(plain(200), alpn=HTTP2)

    seen = await doctor.examine({"orders": doctor.to(RUN_APP, port, protocol="h2")})

    assert seen.done.code == 0
    assert seen.step("orders", "tls")["text"] == (
        "TLSv1.3, HTTP/2 and HTTP/1.1, certificate verified"
    )


async def test_a_name_or_an_address_that_leads_nowhere_is_told(doctor: Doctor) -> None:
    # Port 9 (discard) has no listener on this machine.
    routes: dict[str, Route] = {
        "dns": {"upstream": "https://no-such-name.invalid"},
        "refused": {"upstream": f"https://{RUN_APP}:9"},
        "silent": {"upstream": "https://silent.example.com", "timeouts": {"connect": "300ms"}},
    }

    began = time.monotonic()
    seen = await doctor.examine(routes)

    assert seen.reasons() == {
        "dns": "dns_failed", "refused": "connection_refused", "silent": "dns_timed_out",
    }  # fmt: skip
    assert seen.step("dns", "dns")["command"].startswith("getent hosts no-such-name.invalid")
    assert seen.step("refused", "tcp")["command"] == (
        "python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", 9), 5)'"
    )
    assert seen.outcomes("dns")["token"] == "ok"
    # The name server that never answers holds up neither the report nor the end.
    assert time.monotonic() - began < 10


async def test_each_destination_of_a_route_is_examined_and_one_that_fails_is_enough(
    doctor: Doctor,
) -> None:
    audience = "https://stock.example.com"
    _, refusing = await doctor.private(audience=audience, invokers=frozenset())
    _, serving = await doctor.private(audience=audience)
    places = [f"https://{RUN_APP}:{refusing}", f"https://{DOMAIN}:{serving}"]
    route = {"upstream": places, "audience": audience, "ca_file": doctor.ca}

    done = await doctor.run({"stock": route}, "--format", "json")
    text = await doctor.run({"stock": route}, "stock")

    report = json.loads(done.out)
    assert (done.code, report["ok"]) == (1, False)
    first, second = report["routes"]
    assert [(r["name"], r["upstream"], r["ok"]) for r in (first, second)] == [
        ("stock", places[0], False),
        ("stock", places[1], True),
    ]
    [failed] = [step for step in first["steps"] if step["outcome"] == "failed"]
    assert (failed["step"], failed["reason"]) == ("request", "not_invoker")
    assert text.code == 1
    assert all(f"→ {place}" in text.out for place in places)


async def test_of_several_addresses_the_first_that_accepts_is_taken(doctor: Doctor) -> None:
    # It listens on 127.0.0.1 alone, which is the second address of this name.
    port = await doctor.answering(plain(200), tls=False)
    routes: dict[str, Route] = {
        "open": {"upstream": f"http://two.example.com:{port}", "auth": "none"},
        "closed": {"upstream": "http://two.example.com:9", "auth": "none"},
    }

    seen = await doctor.examine(routes)

    assert seen.step("open", "dns")["facts"]["addresses"] == ["127.0.0.2", "127.0.0.1"]
    assert seen.step("open", "tcp")["facts"]["address"] == "127.0.0.1"
    assert seen.step("open", "request")["outcome"] == "ok"
    closed = seen.step("closed", "tcp")
    assert closed["outcome"] == "failed"
    assert sorted([closed["text"], *closed["notes"]]) == [
        "127.0.0.1:9: connection refused",
        "127.0.0.2:9: connection refused",
    ]


async def test_an_address_that_swallows_packets_is_given_up(doctor: Doctor) -> None:
    with contextlib.ExitStack() as stack:
        # Linux drops what comes for a listener whose queue is full.
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(2):
            caller = stack.enter_context(socket.socket())
            caller.setblocking(False)  # noqa: FBT003 (socket's own way)
            caller.connect_ex(full.getsockname())
        upstream = f"http://127.0.0.1:{full.getsockname()[1]}"

        seen = await doctor.examine(
            {"search": {"upstream": upstream, "timeouts": {"connect": "300ms"}}}
        )

    step = seen.step("search", "tcp")
    assert step["reason"] == "connect_timed_out"
    assert "no answer within 3" in step["text"]


async def test_an_upstream_that_gives_no_answer_is_told(doctor: Doctor) -> None:
    async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: hello\n\n")
        await reader.read()

    ports = {
        "hung": await doctor.serve(silent),
        "closed": await doctor.serve(closing),
        "garbage": await doctor.answering(b"220 mail.example.com ESMTP\r\n\r\n", tls=False),
        "stream": await doctor.serve(endless),
    }
    routes = {
        name: {"upstream": f"http://127.0.0.1:{port}", "timeouts": {"response": "500ms"}}
        for name, port in ports.items()
    }

    seen = await doctor.examine(routes)

    assert seen.reasons() == {
        "hung": "upstream_timed_out",
        "closed": "upstream_reset",
        "garbage": "upstream_malformed",
        "stream": None,
    }
    assert seen.step("hung", "request")["why"] == (
        "The upstream took the request, but it gave no answer within 500 ms."
    )


async def test_a_clock_that_is_off_is_warned_of(doctor: Doctor) -> None:
    began = Clocks().wall()
    port = await doctor.answering(plain(200, "", f"Date: {formatdate(began - 95, usegmt=True)}"))

    seen = await doctor.examine({"orders": doctor.to(RUN_APP, port)})

    clock = seen.step("orders", "clock")
    assert seen.done.code == 0
    assert (clock["outcome"], clock["reason"]) == ("warning", "clock_skew")
    # The date was written before the doctor started; it says whole seconds.
    passed = Clocks().wall() - began
    assert -97 - passed < clock["facts"]["skew_seconds"] < -90
    assert "ahead of Google's" in clock["why"]


# --- as whom


async def test_no_credentials_at_all(doctor: Doctor) -> None:
    _, port = await doctor.private()

    seen = await doctor.examine(
        {"orders": doctor.to(RUN_APP, port)}, env={"GCE_METADATA_HOST": "127.0.0.1:9"}
    )

    credentials = seen.step("orders", "credentials")
    assert credentials["reason"] == "credentials_missing"
    assert credentials["command"] == "gcloud auth application-default login"
    # The way there is looked at all the same.
    assert seen.outcomes("orders") == {
        "credentials": "failed", "token": "skipped", "dns": "ok", "tcp": "ok", "tls": "ok",
        "request": "skipped",
    }  # fmt: skip


async def test_an_instance_without_a_service_account(doctor: Doctor) -> None:
    _, port = await doctor.private()
    doctor.metadata.account = None

    seen = await doctor.examine({"orders": doctor.to(RUN_APP, port)})

    step = seen.step("orders", "account")
    assert step["reason"] == "account_missing"
    assert step["command"] == "gcloud run services update SERVICE --service-account=ACCOUNT"
    assert step["why"] == "This instance has no service account."


async def test_a_pod_without_its_annotation(doctor: Doctor) -> None:
    _, port = await doctor.private()
    body = "the annotation iam.gke.io/gcp-service-account is missing on default/orders"
    doctor.metadata.inject(Answer(status=404, body=body, content_type="text/plain"))

    seen = await doctor.examine({"orders": doctor.to(RUN_APP, port)})

    step = seen.step("orders", "account")
    assert step["reason"] == "account_missing"
    assert body in step["why"]
    assert step["command"].startswith("kubectl annotate serviceaccount NAME ")


@pytest.mark.parametrize(
    ("fault", "reason", "why", "runs"),
    [
        (Minted(lifetime=-60), "token_unavailable", "the token expired ", "date -u"),
        (Minted(claims={"aud": "https://x"}), "token_unavailable", "aud is", "curl -i -H"),
        (Answer(status=200), "token_unavailable", "no ID token came but status 200", "curl -i -H"),
    ],
    ids=["expired", "other-audience", "html"],
)
async def test_a_token_that_cannot_be_used(
    doctor: Doctor, fault: Any, reason: str, why: str, runs: str
) -> None:
    _, port = await doctor.private()
    doctor.metadata.inject(fault, path="identity")

    seen = await doctor.examine({"orders": doctor.to(RUN_APP, port)})

    step = seen.step("orders", "token")
    assert (step["outcome"], step["reason"]) == ("failed", reason)
    assert why in step["why"]
    assert step["command"].startswith(runs)
    assert seen.outcomes("orders")["request"] == "skipped"


async def test_a_metadata_server_that_hangs_is_given_up(doctor: Doctor) -> None:
    _, port = await doctor.private()
    held = asyncio.Event()
    doctor.metadata.inject(Held(held), times=9)

    seen = await doctor.examine({"orders": doctor.to(RUN_APP, port, timeouts={"connect": "300ms"})})
    held.set()

    assert seen.step("orders", "account")["outcome"] == "skipped"
    token = seen.step("orders", "token")
    assert token["reason"] == "token_timed_out"
    assert "no answer within 300 ms" in token["why"]


async def test_every_kind_of_credentials_is_named(doctor: Doctor) -> None:
    _, port = await doctor.private()
    key = doctor.home / "key.json"
    broken = doctor.home / "broken.json"
    broken.write_text("not JSON")
    token = doctor.home / "token"
    token.write_text("neither this")
    async with TokenServices() as google:
        key.write_text(json.dumps(google.key_file()))
        env = google.environ(GOOGLE_APPLICATION_CREDENTIALS=str(key))
        robot = "robot@project.iam.gserviceaccount.com"
        google.accounts.add(robot)
        routes = {
            "named": doctor.to(RUN_APP, port),
            "metadata": doctor.to(RUN_APP, port, credentials="metadata"),
            "gcloud": doctor.to(RUN_APP, port, credentials="gcloud"),
            "broken": doctor.to(RUN_APP, port, credentials={"service_account_file": str(broken)}),
            "token": doctor.to(RUN_APP, port, credentials={"token_file": str(token)}),
            "denied": doctor.to(RUN_APP, port, credentials={"impersonate": robot}),
        }
        seen = await doctor.examine(routes, env=env)

    shown = {name: seen.step(name, "credentials") for name in routes}
    assert shown["named"]["text"] == "~/key.json: a service account's key"
    assert shown["named"]["notes"] == ["GOOGLE_APPLICATION_CREDENTIALS names it"]
    assert seen.step("named", "account")["text"] == "key@project.iam.gserviceaccount.com"
    assert seen.step("named", "token")["outcome"] == "ok"
    assert shown["metadata"]["notes"] == []
    assert shown["gcloud"]["reason"] == "credentials_unusable"
    assert shown["gcloud"]["command"] == "gcloud auth application-default login"
    assert shown["broken"]["command"] == f"ls -l {broken}"
    assert shown["token"]["outcome"] == "ok"
    assert seen.step("token", "token")["command"] == f"ls -l {token}"
    assert shown["denied"]["text"] == f"impersonation of {robot}"
    assert seen.step("denied", "token")["command"] == (
        f"gcloud iam service-accounts add-iam-policy-binding {robot} "
        "--member=serviceAccount:key@project.iam.gserviceaccount.com "
        "--role=roles/iam.serviceAccountOpenIdTokenCreator"
    )


async def test_a_gcloud_login_is_used_and_its_audience_explained(doctor: Doctor) -> None:
    _, port = await doctor.private()
    login = doctor.home / ".config/gcloud/application_default_credentials.json"
    login.parent.mkdir(parents=True)
    async with TokenServices() as google:
        login.write_text(json.dumps(google.login_file()))
        seen = await doctor.examine({"orders": doctor.to(RUN_APP, port)}, env=google.environ())

    assert seen.step("orders", "credentials")["text"].endswith(": a person's gcloud login")
    assert seen.step("orders", "account")["text"] == "dev@example.com"
    assert "gcloud's own audience" in seen.step("orders", "token")["notes"][2]
    # This service, unlike Cloud Run, takes no such token.
    assert seen.step("orders", "request")["reason"] == "audience_fixed"


# --- services by name


async def test_a_service_is_found_by_its_name(doctor: Doctor) -> None:
    seen = await doctor.examine({"orders": {"service": "orders"}})

    service = seen.step("orders", "service")
    assert service["facts"] == {"upstream": f"https://{RUN_APP}"}
    assert seen.step("orders", "token")["facts"]["aud"] == f"https://{RUN_APP}"


async def test_a_service_that_cannot_be_found_is_told(doctor: Doctor) -> None:
    doctor.metadata.inject(Answer(status=404), times=9)

    seen = await doctor.examine({"orders": {"service": "orders"}})

    assert seen.step("orders", "service")["reason"] == "service_unresolved"
    assert seen.outcomes("orders") == {
        "service": "failed", "token": "skipped", "request": "skipped",
    }  # fmt: skip


# --- using the command


async def test_routes_are_examined_at_once_and_reported_in_order(doctor: Doctor) -> None:
    hung = await doctor.serve(silent)
    fine = await doctor.answering(plain(200), tls=False)
    slow = {"upstream": f"http://127.0.0.1:{hung}", "timeouts": {"response": "1s"}}
    routes: dict[str, Route] = {f"slow-{number}": slow for number in range(12)}
    routes["fine"] = {"upstream": f"http://127.0.0.1:{fine}"}

    began = time.monotonic()
    done = await doctor.run(routes)
    some = await doctor.run(routes, "fine", "slow-3", "fine")

    headings = [line.split()[0] for line in done.out.splitlines() if " → http" in line]
    assert headings == list(routes)
    assert time.monotonic() - began < 10  # One after the other they would take 13 s.
    assert some.out.splitlines()[-1] == "1 of 2 routes work; slow-3 fails."


async def test_a_url_is_examined_without_a_file(doctor: Doctor) -> None:
    service, port = await doctor.private()
    url = f"https://localhost:{port}"
    service.audiences = (url,)
    env = {**doctor.metadata.environ, "SSL_CERT_FILE": doctor.ca}

    done = await command("doctor", url, env=env)
    twice = await command("doctor", url, "--config", "x.yaml", env=env)

    assert (done.code, done.out.partition(" ")[0]) == (0, "default")
    assert twice.code == 64


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["order"], "order: no route of {file} has this name; did you mean 'orders'?\n"),
        (["--path", "x"], "--path: begins with a slash, such as /healthz\n"),
        (["--method", "CONNECT"], "--method: is the method of a request, such as GET or POST\n"),
        (["--method", "trace"], "--method: is the method of a request, such as GET or POST\n"),
        (["--method", "a b"], "--method: is the method of a request, such as GET or POST\n"),
    ],
)
async def test_unusable_arguments_are_one_line_and_exit_64(
    doctor: Doctor, arguments: list[str], says: str
) -> None:
    done = await doctor.run({"orders": {"upstream": f"https://{RUN_APP}"}}, *arguments)

    assert (done.code, done.out) == (64, "")
    assert done.err == says.format(file=doctor.file)


async def test_a_bad_configuration_is_told_as_check_tells_it(doctor: Doctor) -> None:
    text = await doctor.run({"orders": {"upstreem": "https://x"}})
    done = await doctor.run({"orders": {"upstreem": "https://x"}}, "--format", "json")
    nobody = await doctor.run(
        {"orders": {"upstream": "https://x"}}, "order", "nobody", "--format", "json"
    )

    assert (text.code, done.code, nobody.code) == (64, 64, 64)
    assert "unknown key 'upstreem'; did you mean 'upstream'?" in text.err
    assert json.loads(done.out)["problems"][0]["line"] == 1
    assert [each["file"] for each in json.loads(nobody.out)["problems"]] == ["nobody", "order"]


async def test_a_reader_that_has_seen_enough_is_no_failure(doctor: Doctor) -> None:
    port = await doctor.answering(plain(200), tls=False)
    read, write = os.pipe()
    os.close(read)
    process = await asyncio.create_subprocess_exec(
        COMMAND,
        "doctor",
        f"http://127.0.0.1:{port}",
        stdout=write,
        stderr=asyncio.subprocess.PIPE,
        env=plain_environment(doctor.home, {}),
        cwd=doctor.home,
    )
    os.close(write)

    _, err = await process.communicate()

    assert (process.returncode, err) == (0, b"")


async def test_ctrl_c_ends_it_at_once(doctor: Doctor) -> None:
    arrived = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        arrived.set()
        await reader.read()

    url = f"http://127.0.0.1:{await doctor.serve(hang)}"
    child = Child([COMMAND, "doctor", url], env=plain_environment(doctor.home, {}))
    await child.spawn()
    await arrived.wait()

    child.signal(signal.SIGINT)

    assert await child.exit_code() == 130
    assert child.output == ""


async def test_a_terminal_without_unicode_gets_words(doctor: Doctor) -> None:
    _, port = await doctor.private(invokers=[])
    env = {"PYTHONIOENCODING": "ascii", "COLUMNS": "60"}

    done = await doctor.run({"orders": doctor.to(RUN_APP, port)}, env=env)

    assert done.code == 1
    assert done.out.isascii()
    assert "  FAIL request       GET / -> 401 Unauthorized in " in done.out
    assert "  ok   TCP           127.0.0.1:" in done.out
    # Never narrower than 80 columns; only commands are longer.
    assert max(len(line) for line in done.out.splitlines() if " run  " not in line) <= 80
    assert CALLER.email in done.out
