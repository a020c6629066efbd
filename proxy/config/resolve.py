"""From the keys of a route to a `Route`: decides what one key means for another."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from proxy.config.addresses import is_loopback, service_upstream
from proxy.config.kinds import Reader, join
from proxy.config.model import Address, Auth, Destination, Route, Upstream
from proxy.config.problems import Place
from proxy.config.tree import Entry, ListNode, MapNode
from proxy.config.values import field_key

# https://cloud.google.com/run/docs/rollouts-rollbacks-traffic-migration#tags: a tagged revision
# answers at https://TAG---SERVICE..., while the service's own URL is what its tokens are for.
_REVISION_TAG = re.compile(r"^[a-z0-9-]+?---(?=[^.])")


@dataclass(frozen=True, slots=True)
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
    for upstream in route.upstream:
        yield with_upstream(Destination(), route, upstream)
    for service in route.service:
        destination = Destination(service=service, audience=route.audience)
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
    values["auth"] = _auth(auth, node, values.get("upstream", ()), path, reader)
    values["own_listener"] = "listen" in node.entries
    route = Route(name=name, **{"listen": listen, **values})
    if route.auth is Auth.NONE:
        route = replace(route, audience=None)
    route = replace(route, destinations=tuple(_destinations(route)))
    matching = {"listen", "host", "path"} & node.entries.keys()
    written = Written(route, entry.place, node, matching_read=matching <= values.keys())
    _check_identity_header(written, path, reader)
    return written


def _check_destination(entry: Entry, node: MapNode, path: str, reader: Reader) -> None:
    written = [key for key in node.entries if key in ("upstream", "service")]
    if not written:
        message = "leads nowhere; write upstream: https://HOST, or service: NAME"
        reader.complain(entry.place, path, message)
    if len(written) > 1:
        message = f"stands beside {written[0]}; keep one of them"
        reader.complain(node.entries[written[1]].place, join(path, written[1]), message)


def _auth(
    written: str, node: MapNode, upstreams: tuple[Upstream, ...], path: str, reader: Reader
) -> Auth:
    """Resolve ``auto``, and refuse to send a token where anyone on the way could read it."""
    here = [not each.tls and is_loopback(each.host) for each in upstreams]
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
    for index, upstream in enumerate(upstreams):
        if upstream.tls or here[index]:
            continue
        auth = node.entries.get("auth")
        where = _item(node, "upstream", index, path)
        reader.complain(
            *((auth.value.place, join(path, "auth")) if auth else where),
            f"an ID token is never sent over plain http to {upstream.host}; "
            "write https://, or auth: none",
        )
    return Auth.ID_TOKEN


def _item(node: MapNode, key: str, index: int, path: str) -> tuple[Place, str]:
    """Return the place of a value of `key`, which may be one of a list, and its name."""
    value, name = node.entries[key].value, join(path, key)
    if isinstance(value, ListNode):
        return value.items[index].place, f"{name}[{index}]"
    return value.place, name


def _check_identity_header(written: Written, path: str, reader: Reader) -> None:
    identity = field_key(written.route.header.value)
    for where, name, place in _touched_headers(written, path):
        if field_key(name) == identity:
            message = f"{name} carries the ID token and is the proxy's own; leave it out"
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
