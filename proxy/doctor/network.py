"""The way to an upstream, one step after the other: name, connection, TLS.

The proxy takes all three at once (`plane.dial`); here each is timed and judged separately.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
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
from proxy.doctor.words import span
from proxy.errors import CHECK_NAME, UpstreamConnectTimedOut
from proxy.frozen import frozen
from proxy.resolver import Resolver

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
    place = await _connect(places, within, deadline, findings)
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
        advice = Advice(
            reason="connect_failed",
            why=f"The Unix socket {path} cannot be connected: {_refusal(error)}.",
            fix="Check connect_to, that whoever listens there runs, and the socket's permissions.",
            command=f"ls -l {shlex.quote(path)}",
        )
        findings.append(failed(Step.TCP, f"unix:{path}: {_refusal(error)}", advice))
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


def _unresolved(host: str, error: Exception, seconds: float) -> Finding:
    reason: Reason
    if isinstance(error, TimeoutError):
        reason, what = "dns_timed_out", f"no answer within {span(seconds)}"
        why = f"The name server did not say within {span(seconds)} where {host} is."
    else:
        reason = "dns_failed"
        what = (error.strerror if isinstance(error, OSError) else None) or "not a host name"
        why = f"The name {host} cannot be resolved: {what}."
    advice = Advice(
        reason=reason,
        why=why,
        fix=CHECK_NAME,
        command=f"getent hosts {host}; cat /etc/resolv.conf",
    )
    return failed(Step.DNS, f"{host}: {what}", advice)


# TCP


async def _connect(
    places: Sequence[Place], within: float, deadline: float, findings: list[Finding]
) -> Place | None:
    """Return the first place that accepts a connection.

    `within` is the route's limit, which is reported for those that do not answer; looking up the
    name has used a little of it.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    errors: dict[Place, str] = {}
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
    findings.append(_unreachable(errors, silent, within))
    return None


async def _dial(place: Place) -> tuple[Place, str | None]:
    """Open a connection and close it again; return the system's error, if any."""
    family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
    with contextlib.closing(socket.socket(family, socket.SOCK_STREAM)) as sock:
        sock.settimeout(0)
        try:
            await asyncio.get_running_loop().sock_connect(sock, place)
        except OSError as error:
            return place, _refusal(error)
    return place, None


def _refusal(error: OSError) -> str:
    names = {errno.ECONNREFUSED: "connection refused", errno.ENETUNREACH: "network unreachable"}
    return names.get(error.errno or 0) or (error.strerror or str(error)).lower()


def _connected(place: Place, errors: dict[Place, str], seconds: float) -> Finding:
    return Finding(
        step=Step.TCP,
        text=f"{_shown(place)} (in {span(seconds)})",
        notes=tuple(f"{_shown(other)}: {error}" for other, error in errors.items()),
        facts={"address": place[0], "port": place[1], "seconds": round(seconds, 4)},
    )


def _unreachable(errors: dict[Place, str], silent: Sequence[Place], within: float) -> Finding:
    said = [f"{_shown(place)}: {error}" for place, error in errors.items()]
    said += [f"{_shown(place)}: no answer within {span(within)}" for place in silent]
    reason: Reason
    if "connection refused" in errors.values():
        reason, why = "connection_refused", "Nothing listens at that address."
        fix = "Check the route's upstream and its port, and that the service runs."
    elif silent:
        reason, why = "connect_timed_out", "Nothing came back: a firewall drops the packets."
        fix = UpstreamConnectTimedOut.default_hint
    else:
        reason, why = "connect_failed", "There is no way there from this machine."
        fix = "Check routes and egress where the proxy runs."
    place = next(iter([*errors, *silent]))
    command = f"nc -vz -w 5 {place[0]} {place[1]}"
    advice = Advice(reason=reason, why=why, fix=fix, command=command)
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
