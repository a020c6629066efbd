"""One route, examined from its configuration to an answer.

The identity and the way to the upstream are examined at the same time, each bounded by the
route's own ``timeouts.connect``; the answer is bounded by ``timeouts.response``.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace

from proxy.config.model import Auth, Protocol, Route, Upstream
from proxy.config.resolve import with_upstream
from proxy.doctor.answers import Answer
from proxy.doctor.call import Call, by_hand, workload_of
from proxy.doctor.clock import clock_finding, skew_of, skew_of_token
from proxy.doctor.findings import Advice, Finding, Outcome, Report, Step, failed, skipped
from proxy.doctor.identity import PATIENCE, Identity, World, identify
from proxy.doctor.network import Way, explore
from proxy.doctor.request import Question, Silence, Target, ask
from proxy.doctor.smells import audience_smell, is_cloud_run
from proxy.doctor.verdict import judge
from proxy.doctor.words import advice_in, again, sentence
from proxy.errors import REASONS
from proxy.identity.source import TokenSourceError

ANSWER_PATIENCE = 60.0
"""The longest wait for an answer, in seconds; a cold start takes about ten."""


async def examine(route: Route, world: World, question: Question) -> Report:
    """Take every step that can be taken, and report what was found."""
    within = min(route.timeouts.connect, PATIENCE)
    route, findings = await _find_service(route, world, within)
    if (smell := audience_smell(route)) is not None:
        findings.append(_suspicious(route, smell))
    upstream = route.first.upstream
    if upstream is None:
        identity = await identify(route, world, within)
        findings += identity.findings
        return Report(route, (*findings, skipped(Step.REQUEST, "it is not known where to")))
    async with AsyncExitStack() as stack:
        identity, way = await asyncio.gather(
            identify(route, world, within),
            explore(route, upstream, within, world.clocks.wall(), stack),
        )
        findings += [*identity.findings, *way.findings]
        findings += await _call(route, upstream, identity, way, world, question)
    return Report(route, tuple(findings))


async def _find_service(route: Route, world: World, within: float) -> tuple[Route, list[Finding]]:
    """Return the route with the upstream and the audience of its service."""
    destination = route.first
    if destination.service is None:
        return route, []
    if destination.upstream is not None:  # The configuration names all parts of it.
        return route, [_found(destination.upstream)]
    try:
        async with asyncio.timeout(within):
            upstream = await world.caches.names.resolve(destination.service)
    except TimeoutError:
        error = TokenSourceError(f"the metadata server did not answer within {within:g} s")
        return route, [_unresolved(route, error)]
    except TokenSourceError as error:
        return route, [_unresolved(route, error)]
    found = with_upstream(destination, route, upstream)
    return replace(route, destinations=(found,)), [_found(upstream)]


def _found(upstream: Upstream) -> Finding:
    return Finding(step=Step.SERVICE, text=str(upstream), facts={"upstream": str(upstream)})


def _unresolved(route: Route, error: TokenSourceError) -> Finding:
    fix, command = advice_in(error.hint)
    advice = Advice(
        reason="service_unresolved",
        why=sentence(error.detail),
        fix=fix,
        command=command or "gcloud run services list",
    )
    return failed(Step.SERVICE, f"{route.first.service}: its URL is not known", advice)


def _suspicious(route: Route, smell: Advice) -> Finding:
    return Finding(
        step=Step.CONFIGURATION,
        outcome=Outcome.WARNING,
        text=f"audience: {route.first.audience}",
        advice=smell,
    )


async def _call(
    route: Route,
    upstream: Upstream,
    identity: Identity,
    way: Way,
    world: World,
    question: Question,
) -> list[Finding]:
    """Make the request if everything that it needs is there."""
    if route.auth is not Auth.NONE and identity.token is None:
        return [skipped(Step.REQUEST, "nothing is sent without a token")]
    if way.place is None:
        return [skipped(Step.REQUEST, "not reached")]
    if route.protocol is Protocol.H2 and not upstream.tls:
        return [skipped(Step.REQUEST, "protocol h2 over plain http is not spoken here")]
    within = min(route.timeouts.response, ANSWER_PATIENCE)
    target = Target(route, upstream, way.place, identity.token)
    answer = await ask(target, question, within, world.clocks)
    clock = _clock(target, answer, world.clocks.wall())
    if isinstance(answer, Silence):
        minted = again("token", route, world.source) if target.token is not None else ""
        return [_silent(question, answer, by_hand(route, question, minted, world.source)), *clock]
    call = Call(
        route=route,
        question=question,
        answer=answer,
        token=identity.token,
        account=identity.account,
        fixed_audience=identity.fixed_audience,
        workload=workload_of(world.environ),
        source=world.source,
    )
    return [judge(call), *clock]


def _silent(question: Question, silence: Silence, command: str) -> Finding:
    path = question.path.partition("?")[0]
    advice = Advice(
        reason=silence.reason,
        why=sentence(f"the upstream took the request, but {silence.text}"),
        fix=REASONS[silence.reason].default_hint,
        command=command,
    )
    return failed(Step.REQUEST, f"{question.method} {path}: {silence.text}", advice)


def _clock(target: Target, answer: Answer | Silence, now: float) -> list[Finding]:
    by_answer = skew_of(answer) if isinstance(answer, Answer) else None
    by_token = skew_of_token(target.token, now) if target.token is not None else None
    peer = "Google" if is_cloud_run(target.upstream.host) else "the upstream"
    finding = clock_finding(by_answer, by_token, peer)
    return [] if finding is None else [finding]
