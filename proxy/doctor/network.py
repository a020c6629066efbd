"""The way to an upstream, one step after the other: name, connection, TLS.

The proxy takes all three at once (`plane.dial`); here each is timed and judged separately.
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import socket
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial

from proxy.config.egress import proxy_of
from proxy.config.model import Address, Route, Upstream
from proxy.doctor.certificate import Place
from proxy.doctor.findings import Advice, Finding, Outcome, Reason, Step, failed, skipped
from proxy.doctor.hop import relay, through_proxy, through_socket, try_proxy
from proxy.doctor.tls import handshake
from proxy.doctor.words import span, try_to_connect
from proxy.errors import UpstreamConnectTimedOut
from proxy.frozen import frozen
from proxy.resolver import Resolver
from proxy.unreached import CHECK_DNS, CHECK_SOCKET, Hop, Why, check, unanswered, why

ADDRESSES = 8
"""Addresses of a name that are tried, all at once; run.app has eight."""


@frozen
class Way:
    """What was found on the way to the upstream."""

    findings: tuple[Finding, ...]
    place: Place | None = None
    """Where the upstream was reached, None where it was not."""


async def explore(
    route: Route, upstream: Upstream, within: float, now: float, stack: AsyncExitStack
) -> Way:
    """Go to the upstream as the proxy would; `within` seconds for all of it.

    `now` is the wall clock's time, for certificates.  The place that is found is good for as long
    as `stack` is open.
    """
    deadline = asyncio.get_running_loop().time() + within
    findings: list[Finding] = []
    place = await _reach(route, within, deadline, findings, stack)
    if place is None:
        return _stopped(findings, Step.TLS)
    if not upstream.tls:
        findings.append(skipped(Step.TLS, "plain http"))
        return Way(tuple(findings), place)
    tls = await handshake(route, upstream, place, deadline, now)
    return Way((*findings, tls), None if tls.outcome is Outcome.FAILED else place)


async def _reach(
    route: Route, within: float, deadline: float, findings: list[Finding], stack: AsyncExitStack
) -> Place | None:
    """Return where TLS or the request begins: the upstream's place, or a relay to it."""
    destination = route.first
    target, proxy = destination.dialled, proxy_of(route, destination)
    if target is None:
        raise AssertionError("the upstream is not resolved")
    if target.path:
        return await _reach_socket(target.path, findings, stack)
    hop = target if proxy is None else Address(proxy.host, proxy.port)
    after = () if proxy is None else (Step.EGRESS_PROXY,)
    places = await _resolve(hop, deadline, findings)
    if not places:
        findings += [skipped(step, "not reached") for step in (Step.TCP, *after)]
        return None
    kind: Hop = "upstream" if destination.connect_to is None else "connect_to"
    kind = kind if proxy is None else "proxy"
    place = await _connect(places, within, deadline, findings, kind)
    if proxy is None:
        return place
    if place is None:
        findings.append(skipped(Step.EGRESS_PROXY, "not reached"))
        return None
    findings.append(await try_proxy(place, proxy, target, deadline))
    if findings[-1].outcome is Outcome.FAILED:
        return None
    return await stack.enter_async_context(relay(partial(through_proxy, place, proxy, target)))


async def _reach_socket(path: str, findings: list[Finding], stack: AsyncExitStack) -> Place | None:
    findings.append(skipped(Step.DNS, "a Unix socket needs no name server"))
    try:
        _, writer, _ = await through_socket(path)
    except OSError as error:
        found, place = why(error), f"unix:{path}"
        command = f"ls -l {shlex.quote(path)}"
        advice = Advice(found.kind, found.sentence(place), CHECK_SOCKET, command)
        findings.append(failed(Step.TCP, f"{place}: {found.said}", advice))
        return None
    writer.transport.abort()
    findings.append(Finding(step=Step.TCP, text=f"unix:{path}", facts={"path": path}))
    return await stack.enter_async_context(relay(partial(through_socket, path)))


def _stopped(findings: list[Finding], *steps: Step) -> Way:
    return Way((*findings, *(skipped(step, "not reached") for step in steps)))


# DNS


async def _resolve(hop: Address, deadline: float, findings: list[Finding]) -> list[Place]:
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        async with asyncio.timeout_at(deadline):
            infos = await Resolver().resolve(hop.host, hop.port)
    except OSError as error:
        findings.append(_unresolved(hop.host, error, loop.time() - began))
        return []
    places = list(dict.fromkeys((info[4][0], info[4][1]) for info in infos))
    addresses = [address for address, _ in places]
    if addresses == [hop.host]:
        findings.append(skipped(Step.DNS, "an IP address needs no name server"))
    else:
        seconds = loop.time() - began
        text = f"{', '.join(addresses)} (in {span(seconds)})"
        facts = {"addresses": addresses, "seconds": round(seconds, 4)}
        findings.append(Finding(step=Step.DNS, text=text, facts=facts))
    return places


def _unresolved(host: str, error: OSError, seconds: float) -> Finding:
    reason: Reason
    if isinstance(error, TimeoutError):
        reason, what, fix = "dns_timed_out", f"no answer within {span(seconds)}", CHECK_DNS
        sentence = unanswered(host, span(seconds))
    else:
        found = why(error)
        reason, what, sentence, fix = found.kind, found.said, found.sentence(host), found.hint
    command = f"getent hosts {host}; cat /etc/resolv.conf"
    return failed(Step.DNS, f"{host}: {what}", Advice(reason, sentence, fix, command))


# TCP


async def _connect(
    places: Sequence[Place], within: float, deadline: float, findings: list[Finding], hop: Hop
) -> Place | None:
    """Return the first place that accepts a connection.

    `within` is the route's limit, which is reported for those that do not answer; looking up the
    name has used a little of it.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    errors: dict[Place, Why] = {}
    dials = {asyncio.ensure_future(_dial(place)): place for place in places[:ADDRESSES]}
    try:
        async with asyncio.timeout_at(deadline):
            for done in asyncio.as_completed(dials):
                place, error = await done
                if error is None:
                    findings.append(_connected(place, errors, loop.time() - began))
                    return place
                errors[place] = error
    except TimeoutError:
        pass
    finally:
        for dial in dials:
            dial.cancel()
        await asyncio.gather(*dials, return_exceptions=True)
    silent = [place for place in dials.values() if place not in errors]
    findings.append(_unreachable(errors, silent, within, hop))
    return None


async def _dial(place: Place) -> tuple[Place, Why | None]:
    """Open a connection and close it again; return why there is none, if so."""
    family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
    with contextlib.closing(socket.socket(family, socket.SOCK_STREAM)) as sock:
        sock.settimeout(0)
        try:
            await asyncio.get_running_loop().sock_connect(sock, place)
        except OSError as error:
            return place, why(error)
    return place, None


def _connected(place: Place, errors: dict[Place, Why], seconds: float) -> Finding:
    return Finding(
        step=Step.TCP,
        text=f"{_shown(place)} (in {span(seconds)})",
        notes=tuple(f"{_shown(other)}: {found.said}" for other, found in errors.items()),
        facts={"address": place[0], "port": place[1], "seconds": round(seconds, 4)},
    )


def _unreachable(
    errors: dict[Place, Why], silent: Sequence[Place], within: float, hop: Hop
) -> Finding:
    said = [f"{_shown(place)}: {found.said}" for place, found in errors.items()]
    said += [f"{_shown(place)}: no answer within {span(within)}" for place in silent]
    refused = [place for place, found in errors.items() if found.kind == "connection_refused"]
    if silent and not refused:
        place = silent[0]
        reason: Reason = "connect_timed_out"
        sentence = "Nothing came back: a firewall drops the packets."
        fix = UpstreamConnectTimedOut.default_hint
    else:
        place = next(iter([*refused, *errors]))
        reason, sentence = errors[place].kind, errors[place].sentence(_shown(place))
        fix = check(errors[place], hop)
    advice = Advice(reason=reason, why=sentence, fix=fix, command=try_to_connect(*place))
    return Finding(
        step=Step.TCP,
        outcome=Outcome.FAILED,
        text=said[0],
        notes=tuple(said[1:]),
        advice=advice,
    )


def _shown(place: Place) -> str:
    host, port = place
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
