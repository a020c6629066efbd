"""What each answer means: the rules as tables."""

from __future__ import annotations

from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from proxy.config.model import Route
from proxy.doctor.answers import Answer
from proxy.doctor.call import Workload, by_hand, workload_of
from proxy.doctor.findings import Finding, Outcome
from proxy.doctor.request import Question
from proxy.doctor.verdict import judge
from tests.fakes.tls import ca_file
from tests.unit.doctor.patients import (
    CALLER,
    HASHED,
    NOW,
    URL,
    answer,
    call,
    front,
    patient,
    token,
)

DOMAIN = "https://orders.example.com"


def verdict(route: Route, to: Answer, **more: Any) -> Finding:
    return judge(call(route, to, **more))


def reason(finding: Finding) -> str | None:
    return finding.advice.reason if finding.advice else None


def command(finding: Finding) -> str:
    assert finding.advice is not None
    return finding.advice.command


@pytest.mark.parametrize("status", [200, 204, 301, 302, 304, 400, 404, 405, 409, 418, 422, 499])
def test_an_answer_of_the_service_means_that_the_route_works(status: int) -> None:
    finding = verdict(patient(), answer(status, "body"))

    assert (finding.outcome, finding.advice) == (Outcome.OK, None)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (401, "service_refused"),
        (403, "service_refused"),
        (407, "service_refused"),
        (429, "service_refused"),
        (500, "service_failed"),
        (503, "service_failed"),
        (599, "service_failed"),
    ],
)
def test_a_service_that_refuses_or_fails_is_blamed_itself(status: int, expected: str) -> None:
    finding = verdict(patient(), answer(status, "some words"))

    assert (finding.outcome, reason(finding)) == (Outcome.FAILED, expected)
    assert finding.notes[1] == "it says 'some words'"
    assert command(finding) == (
        "gcloud run services logs read orders --region=us-central1 --limit=20"
    )


def test_outside_cloud_run_the_call_is_repeated_by_hand(tmp_path: Path) -> None:
    route = patient(f"ca_file: {ca_file(tmp_path)}", DOMAIN)

    with_token = command(verdict(route, answer(500), source="/etc/proxy.yaml"))
    without = command(verdict(patient("auth: none", DOMAIN), answer(500), token=None))

    assert with_token == (
        f'curl -iv --cacert {route.ca_file} {DOMAIN}/ -H "X-Serverless-Authorization: Bearer '
        '$(cloud-run-auth-proxy token a --config /etc/proxy.yaml)"'
    )
    assert without == f"curl -iv {DOMAIN}/"


def test_a_call_by_hand_is_quoted_for_the_shell() -> None:
    said = by_hand(patient(), Question("POST", "/x;id?a=1&b=2"), "", "proxy.yaml")

    assert said == f"curl -iv -X POST '{URL}/x;id?a=1&b=2'"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (401, "token_refused"),
        (403, "not_invoker"),
        (404, "ingress_internal"),
        (429, "no_instance"),
        (500, "instance_failed"),
        (502, "instance_failed"),
        (503, "instance_failed"),
        (504, "service_timed_out"),
        (400, "front_end_refused"),
        (413, "front_end_refused"),
    ],
)
def test_each_answer_of_the_front_end_has_its_meaning(status: int, expected: str) -> None:
    finding = verdict(patient(), front(status))

    assert (finding.outcome, reason(finding)) == (Outcome.FAILED, expected)
    [note] = finding.notes
    assert note.startswith("answered by Google's front end, in place of the service")
    assert command(finding)


@pytest.mark.parametrize("upstream", ["https://localhost:8443", "https://127.0.0.1:8443"])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 502, 503, 504])
def test_on_this_machine_no_service_is_looked_up_at_google(status: int, upstream: str) -> None:
    finding = verdict(patient("", upstream), front(status), source="proxy.yaml")

    assert finding.advice is not None
    assert finding.advice.reason != "custom_domain"
    assert "The emulator prints which audiences it admits" in finding.advice.fix
    assert finding.advice.command == (
        f'curl -iv {upstream}/ -H "X-Serverless-Authorization: Bearer '
        '$(cloud-run-auth-proxy token a --config proxy.yaml)"'
    )


def test_on_this_machine_too_a_suspicious_audience_is_what_to_mend() -> None:
    route = patient("audience: 'https://localhost:8443/'", "https://localhost:8443")
    finding = verdict(route, front(401))

    assert finding.advice is not None
    assert finding.advice.fix.startswith("Leave the route's audience out")
    assert "gcloud" not in finding.advice.command


REFUSED = [
    # The route, what is special about the call, and the first rule that knows an answer.
    (patient(), {}, "token_refused"),
    (patient(f"audience: '{URL}/'"), {}, "audience_refused"),
    (patient("audience: other"), {}, "audience_refused"),
    (patient(f"audience: '{HASHED}'"), {}, "audience_refused"),
    (patient("", DOMAIN), {}, "custom_domain"),
    (patient("", "https://10.0.0.1"), {}, "token_refused"),
    (patient("", DOMAIN), {"fixed_audience": True}, "audience_fixed"),
]


@pytest.mark.parametrize(("route", "more", "expected"), REFUSED)
def test_a_refused_token_is_explained_by_its_audience(
    route: Route, more: dict[str, Any], expected: str
) -> None:
    assert reason(verdict(route, front(401), **more)) == expected


@pytest.mark.parametrize(
    ("claims", "date_ahead", "expected"),
    [
        ({"exp": NOW + 100}, 99, "token_refused"),
        ({"exp": NOW + 100}, 100, "token_expired"),
        ({"exp": NOW + 100}, 4000, "token_expired"),
        ({"iat": NOW + 30}, 0, "token_refused"),
        ({"iat": NOW + 31}, 0, "token_not_yet_valid"),
        ({"iat": "now"}, 0, "token_refused"),
        ({"iat": NOW}, -31, "token_not_yet_valid"),
    ],
)
def test_a_refused_token_is_explained_by_the_upstreams_clock(
    claims: dict[str, Any], date_ahead: float, expected: str
) -> None:
    route = patient()
    # Less than nothing took less than no time: the clock is known to the second then.
    date = formatdate(NOW + date_ahead - (1 if date_ahead < 0 else 0), usegmt=True)

    finding = verdict(route, front(401, date=date), token=token(route, **claims))

    assert reason(finding) == expected


FORBIDDEN = [
    (patient(), "", {}, "not_invoker"),
    (patient(), "vpcServiceControlsUniqueIdentifier: x", {}, "vpc_service_controls"),
    (patient("auth: none"), "", {"token": None}, "token_not_sent"),
    (patient("header: Proxy-Authorization"), "", {}, "header_not_read"),
    (patient("header: Authorization"), "", {}, "not_invoker"),
]


@pytest.mark.parametrize(("route", "body", "more", "expected"), FORBIDDEN)
def test_a_refused_caller_is_explained(
    route: Route, body: str, more: dict[str, Any], expected: str
) -> None:
    to = answer(403, body) if body else front(403)
    assert reason(verdict(route, to, **more)) == expected


@pytest.mark.parametrize(
    ("account", "member"),
    [
        (CALLER, f"serviceAccount:{CALLER}"),
        ("dev@example.com", "user:dev@example.com"),
        ("", "serviceAccount:EMAIL@PROJECT.iam.gserviceaccount.com"),
    ],
)
def test_the_grant_names_whoever_called(account: str, member: str) -> None:
    assert command(verdict(patient(), front(403), account=account)) == (
        "gcloud run services add-iam-policy-binding orders --region=us-central1 "
        f"--member={member} --role=roles/run.invoker"
    )


def test_names_that_a_url_does_not_tell_are_found_with_a_command() -> None:
    for status in (401, 403, 404, 503):
        finding = verdict(patient("", HASHED.replace("//", "//green---")), front(status))
        assert finding.advice is not None
        assert "`gcloud run services list | grep orders-abc123-uc`" in finding.advice.fix


@pytest.mark.parametrize(
    ("environ", "workload"),
    [
        ({}, None),
        ({"K_SERVICE": ""}, None),
        ({"K_SERVICE": "front"}, Workload("services", "front")),
        ({"CLOUD_RUN_JOB": "nightly"}, Workload("jobs", "nightly")),
        ({"CLOUD_RUN_WORKER_POOL": "pool"}, Workload("worker-pools", "pool")),
    ],
)
def test_where_this_runs_is_told_by_cloud_runs_variables(
    environ: dict[str, str], workload: Workload | None
) -> None:
    assert workload_of(environ) == workload


def test_a_caller_on_cloud_run_is_told_how_to_get_into_the_network() -> None:
    workload = Workload("services", "front")

    said = command(verdict(patient(), front(404), workload=workload))

    assert said.startswith("gcloud run services update front ")
    assert said.endswith(" --vpc-egress=all-traffic")


LOGIN = {"location": "https://accounts.google.com/o/oauth2/v2/auth?client_id=x&state=SECRET"}
IAP = {"x_goog_iap_generated_response": "true"}
CLIENT = "123456789012-abc0def.apps.googleusercontent.com"


@pytest.mark.parametrize(
    ("keys", "to", "expected"),
    [
        ("", answer(302, **LOGIN), "iap_header_not_read"),
        ("", answer(401, **IAP), "iap_header_not_read"),
        ("header: Authorization", answer(302, **LOGIN), "iap_audience_refused"),
        ("header: Proxy-Authorization", answer(401, **IAP), "iap_audience_refused"),
        ("", answer(403, **IAP), "iap_not_accessor"),
        ("", answer(302, location="https://accounts.google.com.example.com/"), None),
    ],
)
def test_identity_aware_proxys_answers_are_explained(
    keys: str, to: Answer, expected: str | None
) -> None:
    finding = verdict(patient(keys, DOMAIN), to)

    assert reason(finding) == expected
    assert "SECRET" not in repr(finding)


def test_the_audience_that_identity_aware_proxy_wants_is_quoted() -> None:
    body = f"JWT audience doesn't match: 'aud' claim (x) doesn't match expected value ({CLIENT})"

    told = verdict(patient("header: Authorization", DOMAIN), answer(401, body, **IAP))
    tricked = verdict(
        patient("header: Authorization", DOMAIN),
        answer(401, "expected value ($(id))", **IAP),
    )

    assert told.advice is not None
    assert told.advice.fix == f"Set the route's audience to {CLIENT}."
    assert tricked.advice is not None
    assert "$(id)" not in tricked.advice.fix


@pytest.mark.parametrize(
    ("upstream", "resource"),
    [
        (URL, "--resource-type=cloud-run --service=orders --region=us-central1"),
        (DOMAIN, "--resource-type=backend-services --service=BACKEND_SERVICE"),
    ],
)
def test_who_may_not_pass_identity_aware_proxy_gets_the_grant(upstream: str, resource: str) -> None:
    assert command(verdict(patient("", upstream), answer(403, **IAP))) == (
        f"gcloud iap web add-iam-policy-binding {resource} --member=serviceAccount:{CALLER} "
        "--role=roles/iap.httpsResourceAccessor"
    )


@pytest.mark.parametrize(
    ("location", "note"),
    [
        ("https://login.example.com/a?b=SECRET", "a redirect to login.example.com: "),
        ("https://user:SECRET@login.example.com/", "a redirect to login.example.com: "),
        ("/SECRET", "a redirect: "),
        ("", "a redirect: "),
    ],
)
def test_a_redirect_is_told_without_what_may_be_secret(location: str, note: str) -> None:
    finding = verdict(patient(), answer(302, location=location))

    assert finding.notes[1] == f"{note}the proxy passes it on"
    assert "SECRET" not in repr(finding)


def test_no_command_can_be_steered_by_what_a_configuration_holds() -> None:
    route = patient("audience: 'https://orders.example.com'", DOMAIN)
    odd = patient('audience: "$$(id) \';x"')

    said = command(verdict(route, front(401)))
    asked = command(verdict(odd, front(401)))

    assert said.endswith(f"--add-custom-audiences={DOMAIN}")
    assert "$(id)" not in asked
