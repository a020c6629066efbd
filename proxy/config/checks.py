"""Contradictions between routes and listeners; every check reports what it finds and goes on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from proxy.config.addresses import is_loopback
from proxy.config.egress import proxy_of
from proxy.config.kinds import Reader
from proxy.config.model import Address, Admin
from proxy.config.problems import Place
from proxy.config.proxies import HttpProxy
from proxy.config.resolve import Written

_EVERY = {"0.0.0.0", "::"}  # noqa: S104 (compared with, not bound)


def check_together(
    routes: Sequence[Written], admin: Admin | None, admin_place: Place | None, reader: Reader
) -> None:
    """Check all routes and the admin listener; `admin_place` is None where it is not written."""
    _check_same_requests(routes, reader)
    _check_addresses(routes, reader)
    if admin is not None:
        _check_admin(routes, admin.listen, admin_place, reader)
    _check_loops(routes, reader)
    _check_egress(routes, admin, reader)


def _check_same_requests(routes: Iterable[Written], reader: Reader) -> None:
    """Refuse two routes between which only their order in the file could decide."""
    first: dict[tuple[Address, bool, str, str], Written] = {}
    for written in routes:
        route = written.route
        if not written.matching_read:
            continue
        rules = [
            (address, route.own_listener, host, route.path)
            for address in route.listen
            for host in route.host or ("",)
        ]
        other = next((first[rule] for rule in rules if rule in first), None)
        if other is not None:
            reader.complain(
                written.place,
                f"routes.{route.name}",
                f"matches the same requests as route {other.route.name!r} at {other.place}; "
                "give one of them another host, path or listen",
            )
        for rule in rules:
            first.setdefault(rule, written)


def _check_addresses(routes: Iterable[Written], reader: Reader) -> None:
    """Refuse listeners that cannot both be opened."""
    opened: defaultdict[int, list[Address]] = defaultdict(list)
    for written in routes:
        for address in written.route.listen:
            same_port = opened[address.port]
            if address in same_port:
                continue
            for other in same_port:
                if _overlap(address, other):
                    reader.complain(
                        written.place_of("listen"),
                        f"routes.{written.route.name}.listen",
                        f"{address} and {other} cannot both be opened; write one of them for both",
                    )
            same_port.append(address)


def _check_admin(
    routes: Iterable[Written], admin: Address, place: Place | None, reader: Reader
) -> None:
    for written in routes:
        for address in written.route.listen:
            if _overlap(address, admin):
                reader.complain(
                    place or written.place_of("listen"),
                    "admin",
                    f"{admin} is a listener of route {written.route.name!r} too; "
                    "give admin another port, or write admin: off",
                )
                return


def _check_loops(routes: Sequence[Written], reader: Reader) -> None:
    """Refuse an upstream that is one of the proxy's own listeners."""
    ports = _by_port(routes)
    for written in routes:
        for index, destination in enumerate(written.route.destinations):
            called = destination.dialled
            if called is None or not (called.path or is_loopback(called.host)):
                continue
            key = "upstream" if destination.connect_to is None else "connect_to"
            for address in ports.get(called.port, ()):
                if _overlap(address, called):
                    reader.complain(
                        *written.item(key, index),
                        f"{address} is a listener of this proxy, which would call itself; "
                        "name the service's own port, or listen elsewhere",
                    )


def _by_port(routes: Iterable[Written]) -> defaultdict[int, dict[Address, None]]:
    """Return all listeners by their port, in order of first use."""
    ports: defaultdict[int, dict[Address, None]] = defaultdict(dict)
    for written in routes:
        for address in written.route.listen:
            ports[address.port][address] = None
    return ports


def _check_egress(routes: Sequence[Written], admin: Admin | None, reader: Reader) -> None:
    """Refuse an egress proxy that is a listener of this process: it would wait for itself."""
    ports = _by_port(routes)
    if admin is not None:
        ports[admin.listen.port][admin.listen] = None
    for written, proxy in _proxies(routes):
        called = Address(proxy.host, proxy.port)
        if not any(_overlap(each, called) for each in ports.get(proxy.port, ())):
            continue
        what = f"{proxy.variable} names {proxy}, which" if proxy.variable else f"{proxy}"
        reader.complain(
            written.place_of("egress_proxy"),
            f"routes.{written.route.name}.egress_proxy",
            f"{what} is a listener of this proxy, not of an egress proxy; "
            "name another one, or write egress_proxy: off",
        )


def _proxies(routes: Iterable[Written]) -> Iterator[tuple[Written, HttpProxy]]:
    """Yield each route with each egress proxy of its destinations, once."""
    for written in routes:
        route = written.route
        for proxy in dict.fromkeys(proxy_of(route, each) for each in route.destinations):
            if proxy is not None:
                yield written, proxy


def _overlap(one: Address, other: Address) -> bool:
    """Tell whether a connection to one of them could reach the other."""
    if one.path or other.path:
        return one.path == other.path
    if one.port != other.port or one.port == 0:  # Port 0 is another port each time.
        return False
    if one.host == other.host:
        return True
    hosts = {one.host, other.host}
    if "localhost" in hosts:  # Both 127.0.0.1 and ::1.
        return bool(hosts & _EVERY) or all(map(is_loopback, hosts))
    same_family = (":" in one.host) == (":" in other.host)
    return same_family and bool(hosts & _EVERY)
