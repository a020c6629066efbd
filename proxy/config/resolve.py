"""From the keys of a route to a `Route`: decides what one key means for another."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, repeat
from typing import Any

from proxy.config import egress
from proxy.config.addresses import is_host_of, is_loopback, service_upstream
from proxy.config.kinds import Reader, join
from proxy.config.model import (
    Address,
    Auth,
    Destination,
    IdentityHeader,
    Route,
    TokenFile,
    Upstream,
)
from proxy.config.problems import Place
from proxy.config.tree import Entry, ListNode, MapNode
from proxy.config.values import field_key
from proxy.frozen import frozen

GOOGLE_APIS = "*.googleapis.com"
"""The hosts of Google's APIs: https://cloud.google.com/apis/docs/overview, regional and private
ones (``*.p.googleapis.com``) included."""

_SERVICES = "service.run.app"  # Stands for the host of a service that is not resolved yet.

# https://cloud.google.com/run/docs/rollouts-rollbacks-traffic-migration#tags: a tagged revision
# answers at https://TAG---SERVICE..., while the service's own URL is what its tokens are for.
_REVISION_TAG = re.compile(r"^[a-z0-9-]+?---(?=[^.])")


@frozen
class Written:
    """A route with the places of its keys."""

    route: Route
    place: Place
    """Of the route's name."""
    node: MapNode
    """Its keys, those of `defaults` included."""
    matching_read: bool
    """Whether every key that says what it matches could be read."""

    def place_of(self, key: str) -> Place:
        """Return where the value of `key` stands; the route's own place if it has none."""
        entry = self.node.entries.get(key)
        return entry.value.place if entry else self.place

    def item(self, key: str, index: int) -> tuple[Place, str]:
        """Return the place of a value of `key`, which may be one of a list, and its name."""
        return _item(self.node, key, index, f"routes.{self.route.name}")


def default_audience(upstream: Upstream) -> str:
    """Return the upstream's origin without a revision tag: what Cloud Run expects as ``aud``."""
    return replace(upstream, host=_REVISION_TAG.sub("", upstream.host)).origin


def with_upstream(destination: Destination, route: Route, upstream: Upstream) -> Destination:
    """Return a destination of `route` at `upstream`, with the default audience if none is named."""
    audience = route.audience
    if audience is None and route.auth is Auth.ID_TOKEN:
        audience = default_audience(upstream)
    return replace(destination, upstream=upstream, audience=audience)


def _destinations(route: Route) -> Iterator[Destination]:
    """Yield where the keys of `route` lead, as far as they say it."""
    # One place holds for all; too few have been reported.
    one = len(route.connect_to) == 1
    places: Iterator[Address | None] = chain(
        route.connect_to, repeat(route.connect_to[0] if one else None)
    )
    for upstream in route.upstream:
        yield with_upstream(Destination(connect_to=next(places)), route, upstream)
    for service in route.service:
        destination = Destination(service=service, connect_to=next(places), audience=route.audience)
        if service.project_number:
            destination = with_upstream(destination, route, service_upstream(service))
        yield destination


def make_route(
    name: str,
    entry: Entry,
    node: MapNode,
    values: dict[str, Any],
    listen: tuple[Address, ...],
    reader: Reader,
) -> Written:
    """Return the route; report where its keys contradict each other.

    `values` are the keys that could be read, `listen` the top-level addresses.
    """
    path = join("routes", name)
    _check_destination(entry, node, path, reader)
    values = dict(values)
    # A word that could not be read has been reported, and must not cause other problems.
    auth = values.get("auth", "none" if "auth" in node.entries else "auto")
    values["auth"] = _auth(auth, node, _receivers(values), path, reader)
    own = entry.value.entries if isinstance(entry.value, MapNode) else {}
    if values["auth"] is Auth.ACCESS_TOKEN and "header" not in own:
        # The only one that Google's APIs read: one in `defaults` is for services.
        values["header"] = IdentityHeader.AUTHORIZATION
    values["own_listener"] = "listen" in node.entries
    if "egress_proxy" not in node.entries:
        values["egress_proxy"] = egress.of_environment(reader.env)
    route = Route(name=name, **{"listen": listen, **values})
    if route.auth is not Auth.ID_TOKEN:
        route = replace(route, audience=None)
    route = replace(route, destinations=tuple(_destinations(route)))
    matching = {"listen", "host", "path"} & node.entries.keys()
    written = Written(route, entry.place, node, matching_read=matching <= values.keys())
    _check_identity_header(written, path, reader)
    _check_places(written, path, reader)
    _check_variables(written, path, reader)
    if route.auth is Auth.ACCESS_TOKEN:
        _check_source(written, path, reader)
        if "access_token_hosts" in values or "access_token_hosts" not in node.entries:
            _check_receivers(written, path, reader)
    elif "scopes" in own:
        # In `defaults` they are for those routes that have access tokens.
        message = "are those of an access token; write auth: access_token, or remove them"
        reader.complain(written.place_of("scopes"), join(path, "scopes"), message)
    return written


def _check_destination(entry: Entry, node: MapNode, path: str, reader: Reader) -> None:
    written = [key for key in node.entries if key in ("upstream", "service")]
    if not written:
        message = "leads nowhere; write upstream: https://HOST, or service: NAME"
        reader.complain(entry.place, path, message)
    if len(written) > 1:
        message = f"stands beside {written[0]}; keep one of them"
        reader.complain(node.entries[written[1]].place, join(path, written[1]), message)


def _receivers(values: dict[str, Any]) -> list[tuple[Upstream, str]]:
    """Return each upstream with the host that is dialled for it, empty for a Unix socket."""
    places: tuple[Address, ...] = values.get("connect_to", ())
    upstreams: tuple[Upstream, ...] = values.get("upstream", ())
    hosts = ["" if each.path else each.host for each in places]
    if len(hosts) == 1:
        hosts *= len(upstreams)
    # Too few have been reported.
    own = [each.host for each in upstreams[len(hosts) :]]
    return list(zip(upstreams, [*hosts, *own], strict=False))


def _auth(
    written: str,
    node: MapNode,
    receivers: list[tuple[Upstream, str]],
    path: str,
    reader: Reader,
) -> Auth:
    """Resolve ``auto``, and refuse to send a token where anyone on the way could read it.

    `receivers` are the upstreams with the hosts that are dialled for them.
    """
    upstreams = [upstream for upstream, _ in receivers]
    here = [not each.tls and (not host or is_loopback(host)) for each, host in receivers]
    if written == "none" or (written == "auto" and here and all(here)):
        return Auth.NONE
    if written == "auto" and any(here):
        index = here.index(not here[0])
        reader.complain(
            *_item(node, "upstream", index, path),
            f"{upstreams[index].origin} and {upstreams[0].origin} would differ in sending an ID "
            "token; write auth: id_token or auth: none for both",
        )
        return Auth.ID_TOKEN
    access = written == "access_token"
    for index, (upstream, host) in enumerate(receivers):
        if upstream.tls or here[index]:
            continue
        auth = node.entries.get("auth")
        where = _item(node, "upstream", index, path)
        reader.complain(
            *((auth.value.place, join(path, "auth")) if auth else where),
            f"an {'access' if access else 'ID'} token is never sent over plain http to "
            f"{host}; write https://, or auth: none",
        )
    return Auth.ACCESS_TOKEN if access else Auth.ID_TOKEN


def _check_source(written: Written, path: str, reader: Reader) -> None:
    """Refuse credentials that have no access tokens."""
    if isinstance(written.route.credentials, TokenFile):
        message = (
            "a token file holds an ID token, and an access token in one would not say when it "
            "expires; write other credentials"
        )
        reader.complain(written.place_of("credentials"), join(path, "credentials"), message)


def _check_receivers(written: Written, path: str, reader: Reader) -> None:
    """Refuse to send an access token to anybody but Google, or to those that the file names.

    Whoever gets one can use it for everything that its account may do, whereas an ID token is of
    use to its audience alone.
    """
    route = written.route
    upstreams = len(route.upstream)
    # Where there is none, or it could not be read, that has been reported.
    for index, each in enumerate(route.destinations):
        host = _SERVICES if each.upstream is None else each.upstream.host
        if is_host_of((GOOGLE_APIS, *route.access_token_hosts), host):
            continue
        named = ("upstream", index) if index < upstreams else ("service", index - upstreams)
        reader.complain(
            *_item(written.node, *named, path),
            f"an access token is for Google's APIs ({GOOGLE_APIS}) and is not sent to {host}; "
            "write auth: id_token for a service of your own, or name a host that may have it in "
            "access_token_hosts",
        )


def _item(node: MapNode, key: str, index: int, path: str) -> tuple[Place, str]:
    """Return the place of a value of `key`, which may be one of a list, and its name."""
    value, name = node.entries[key].value, join(path, key)
    if isinstance(value, ListNode):
        index = min(index, len(value.items) - 1)  # One place may be that of all destinations.
        return value.items[index].place, f"{name}[{index}]"
    return value.place, name


def _check_places(written: Written, path: str, reader: Reader) -> None:
    route = written.route
    places, upstreams = len(route.connect_to), len(route.destinations)
    if places > 1 and upstreams and places != upstreams:
        reader.complain(
            written.place_of("connect_to"),
            join(path, "connect_to"),
            f"has {places} places for {upstreams} upstream{'s' * (upstreams > 1)}; "
            "write one for each, or one for all",
        )


def _check_variables(written: Written, path: str, reader: Reader) -> None:
    """Refuse a variable that curl would obey and we cannot: to dial directly would go round it."""
    route = written.route
    if not route.egress_proxy.auto:
        return
    for scheme, host in map(egress.address_of, route.destinations):
        fault = egress.unusable(reader.env, scheme)
        if fault and not egress.is_direct(host, route.egress_proxy):
            place = written.place_of("egress_proxy")
            reader.complain(place, path, f"{fault}, or egress_proxy: off here")


def _check_identity_header(written: Written, path: str, reader: Reader) -> None:
    identity = field_key(written.route.header.value)
    for where, name, place in _touched_headers(written, path):
        if field_key(name) == identity:
            message = f"{name} carries the token and is the proxy's own; leave it out"
            reader.complain(place, where, message)


def _touched_headers(written: Written, path: str) -> Iterator[tuple[str, str, Place]]:
    """Yield each header that the route sets or removes: its key, its name and its place."""
    entries = written.node.entries
    # The route's own tuple is empty where the key could not be read.
    if written.route.set_headers and isinstance(node := entries["set_headers"].value, MapNode):
        for name, entry in node.entries.items():
            yield join(path, "set_headers"), name, entry.place
    if written.route.remove_headers and isinstance(
        node := entries["remove_headers"].value, ListNode
    ):
        for index, (name, item) in enumerate(
            zip(written.route.remove_headers, node.items, strict=False)
        ):
            yield f"{path}.remove_headers[{index}]", name, item.place
