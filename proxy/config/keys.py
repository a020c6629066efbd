"""From a field of `model` to a key of the file, and the whole document as tables of keys."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from functools import partial
from typing import Any, Final

from proxy.config import addresses, egress, values
from proxy.config.credentials import CREDENTIALS
from proxy.config.files import File, check_certificates, check_readable
from proxy.config.kinds import (
    ABSENT,
    BROKEN,
    Choice,
    Count,
    Flag,
    HeaderValues,
    Key,
    Kind,
    ListOf,
    Reader,
    ScalarKind,
    Schema,
    Section,
    Word,
    WordOrSection,
    any_of,
    expect_mapping,
    join,
    or_variable,
    pattern,
)
from proxy.config.model import RETRY_CAUSES, Admin, Config, Limits, Retries, Route, Timeouts
from proxy.config.problems import quoted
from proxy.config.proxies import Egress
from proxy.config.show import credentials
from proxy.config.tree import MapNode, Node, ScalarNode

_DURATION_OR_OFF = f"off|{values.DURATION}"


def section(cls: Any, build: Callable[..., Any] | None = None, **more: Any) -> Section:
    """Return the section whose keys are the fields of `cls`; it builds a `cls` by default."""
    keys = tuple(_key(each) for each in fields(cls) if "kind" in each.metadata)
    return Section(keys, cls if build is None else build, **more)


def _key(field: Field[Any], name: str = "") -> Key:
    """Return the key of a field, which is called as the field is unless it has another `name`."""
    kind = KINDS[field.metadata["kind"]](field.metadata)
    default = field.metadata.get("written", ABSENT)
    in_words = "shown" in field.metadata or isinstance(kind, Section)
    if default is ABSENT and not in_words and field.default is not MISSING:
        default = kind.show(field.default)
    shown = field.metadata.get("shown", "")
    return Key(name or field.name, kind, field.metadata["help"], default, shown)


def _word(label: str, parse: Callable[[str], Any], regex: str) -> Word:
    return Word(label, parse, pattern(regex))


def _duration(parse: Callable[[str], float], regex: str) -> Word:
    # A number without its unit is no text either; `parse` says how to mend it.
    return Word(
        "a duration such as 5s", parse, pattern(regex), write=values.show_duration, is_text=False
    )


def _destinations(item: Word) -> ListOf:
    nowhere = f"an empty list leads nowhere; write {item.label()}"
    return ListOf(
        item, f"{item.label()}, or a list of them", or_one=True, least=1, if_empty=nowhere
    )


def _number_or(regex: str, **bounds: int) -> Schema:
    texts: Schema = {"type": "string", "pattern": f"^({regex})$"}
    return or_variable(any_of({"type": "integer", **bounds}, texts))


def _choice(metadata: Mapping[str, Any], *, ignore_case: bool = False) -> Choice:
    choices = metadata["choices"]
    if isinstance(choices, tuple):
        return Choice({word: word for word in choices}, ignore_case)
    return Choice({member.value: member for member in choices}, ignore_case)


ADDRESS = Word(
    "an address such as localhost:8081",
    addresses.address,
    _number_or(addresses.ADDRESS, minimum=0, maximum=65535),
    is_text=False,
)
ADDRESSES = ListOf(ADDRESS, "an address or a list of them", or_one=True, least=1)
_PLACE = Word(
    "a place to dial such as 10.0.0.5",
    addresses.connect_to,
    pattern(addresses.CONNECT_TO),
    addresses.show_place,
)
_SIZE = Word(
    "a size such as 64KiB",
    values.size,
    _number_or(values.SIZE, minimum=0),
    write=values.show_size,
    is_text=False,
)
_SHARE = Word(
    "a share such as 20%", values.share, pattern(values.SHARE), values.show_share, is_text=False
)
_CAUSE = Word(
    "a failure class or a status",
    values.cause,
    or_variable(
        any_of(
            {"enum": list(RETRY_CAUSES)},
            {"type": "integer", "minimum": 400, "maximum": 599},
            {"type": "string", "pattern": f"^{values.CAUSE_STATUS}$"},
        )
    ),
    write=lambda cause: cause,
    is_text=False,
)
# Unquoted null is what a user writes for the origin that browsers send as "null".
_ORIGIN = Word(
    "an origin such as https://app.example.com",
    addresses.origin,
    any_of({"type": "null"}, pattern(addresses.ORIGIN)),
    is_text=False,
)
_AUDIENCE = Word("a text", values.audience, or_variable({"type": "string", "minLength": 1}))
_SCOPE = Word("a scope", values.scope, pattern(values.SCOPE))
_ACCOUNT = Word("a service account", values.account, pattern(values.ACCOUNT))


class _EgressProxy(ScalarKind):
    """``auto``, ``off``, or the URL of an HTTP proxy, which no message shows."""

    __slots__ = ()

    def label(self) -> str:
        return "auto, off, or a URL such as http://HOST:PORT"

    def from_text(self, text: str, node: ScalarNode, reader: Reader) -> Egress:
        del node
        if text == egress.AUTO:
            return egress.of_environment(reader.env)
        if text == egress.OFF:
            return Egress()
        proxy = egress.http_proxy(text)
        return Egress(proxy, proxy)

    def schema(self) -> Schema:
        return any_of({"enum": [egress.AUTO, egress.OFF]}, pattern(egress.URL))

    def show(self, value: Egress) -> str:
        return egress.shown(value)


class _AdminAddress(ScalarKind):
    """``off``, or the address alone."""

    __slots__ = ()

    def label(self) -> str:
        return "off, an address such as localhost:9090"

    def from_text(self, text: str, node: ScalarNode, reader: Reader) -> Admin | None:
        del node, reader
        return None if text == "off" else Admin(listen=addresses.address(text))

    def schema(self) -> Schema:
        return any_of({"enum": ["off"]}, ADDRESS.schema())

    def show(self, value: Admin | None) -> str:
        return "off" if value is None else str(value.listen)


def _finish_admin(found: dict[str, Any], node: MapNode, path: str, reader: Reader) -> Admin:
    del node, path, reader
    return Admin(**found)


def _admin(metadata: Mapping[str, Any]) -> Kind:
    single = _AdminAddress()
    return WordOrSection(single, section(metadata["of"], dict), _finish_admin, write=single.show)


def _credentials(*, source: bool = False) -> Kind:
    """Return how credentials are written: those that may impersonate where they are a `source`."""
    kinds = {name: kind for name, kind in CREDENTIALS.items() if not (source and kind.no_source)}
    refused = {name: kind.no_source for name, kind in CREDENTIALS.items() if name not in kinds}
    own = {name: fields(kind.cls) for name, kind in kinds.items()}
    groups = {name: _group(name, *each) for name, each in own.items() if each}
    return WordOrSection(
        single=Choice({name: kinds[name].cls() for name in kinds if name not in groups}),
        section=Section(tuple(key for keys in groups.values() for key in keys), elsewhere=refused),
        finish=partial(_finish_credentials, groups),
        alternatives=tuple(tuple(key.name for key in keys) for keys in groups.values()),
        write=credentials,
    )


def _group(name: str, first: Field[Any], *more: Field[Any]) -> tuple[Key, ...]:
    """Return the keys of one kind of credentials that is a mapping; `CredentialsKind.cls`."""
    return _key(first, name), *map(_key, more)


def _finish_credentials(
    groups: Mapping[str, tuple[Key, ...]],
    found: dict[str, Any],
    node: MapNode,
    path: str,
    reader: Reader,
) -> Any:
    """Make the credentials; exactly one of the kinds in `groups` must have been written."""
    written = [name for name in node.entries if name in groups]
    if len(written) != 1:
        place = node.entries[written[1]].place if written else node.place
        reader.complain(place, path, f"write exactly one of {', '.join(groups)}")
        return BROKEN
    kind = written[0]
    own = [key.name for key in groups[kind]]
    for name in found:
        if name not in own:
            owner = next(each for each, keys in groups.items() if name in {k.name for k in keys})
            message = f"goes with {owner} only; remove it"
            reader.complain(node.entries[name].place, join(path, name), message)
    if kind not in found:
        return BROKEN
    first, *more = own
    return CREDENTIALS[kind].cls(found[first], **{k: found[k] for k in more if k in found})


KINDS: Mapping[str, Callable[[Mapping[str, Any]], Kind]] = {
    "address": lambda _: ADDRESS,
    "addresses": lambda _: ADDRESSES,
    "admin": _admin,
    "allowed_hosts": lambda _: ListOf(
        _word("a host", addresses.allowed_host, addresses.HOST),
        "any, a host or a list of them",
        or_one=True,
    ),
    "audience": lambda _: _AUDIENCE,
    "causes": lambda _: ListOf(_CAUSE, "a list of failure classes and statuses"),
    "choice": _choice,
    "count": lambda metadata: Count(metadata["minimum"], metadata.get("maximum")),
    "credentials": lambda _: _credentials(),
    "credentials_source": lambda _: _credentials(source=True),
    "deadline": lambda _: _duration(values.deadline, _DURATION_OR_OFF),
    "egress": lambda _: _EgressProxy(),
    "field": lambda metadata: _choice(metadata, ignore_case=True),
    "file": lambda _: File(check_certificates),
    "flag": lambda _: Flag(),
    "header_names": lambda _: ListOf(
        _word("a header name", values.header_name, values.TOKEN), "a list of header names"
    ),
    "header_values": lambda _: HeaderValues(
        _word("a header value", values.header_value, values.FIELD_VALUE)
    ),
    "hosts": lambda _: ListOf(
        _word("a host", addresses.host, addresses.HOST),
        "a host or a list of them",
        or_one=True,
        least=1,
    ),
    "methods": lambda _: ListOf(
        _word("a method", values.method, values.METHOD), "a list of methods"
    ),
    "origins": lambda _: ListOf(_ORIGIN, "a list of origins"),
    "path": lambda _: _word("a path such as /orders", addresses.path, addresses.PATH),
    "pause": lambda _: _duration(values.pause, values.DURATION),
    "period": lambda _: _duration(values.period, _DURATION_OR_OFF),
    "places": lambda _: ListOf(_PLACE, "a place to dial or a list of them", or_one=True, least=1),
    "readable": lambda _: File(check_readable),
    "scopes": lambda _: ListOf(_SCOPE, "a list of scopes", or_one=True, least=1),
    "section": lambda metadata: section(metadata["of"]),
    "service_account": lambda _: _ACCOUNT,
    "service_accounts": lambda _: ListOf(_ACCOUNT, "a list of service accounts"),
    "services": lambda _: _destinations(
        _word("a service's name", addresses.service, addresses.SERVICE)
    ),
    "share": lambda _: _SHARE,
    "size": lambda _: _SIZE,
    "token_hosts": lambda _: ListOf(
        _word("a host", addresses.host, addresses.HOST), "a host or a list of them", or_one=True
    ),
    "upstreams": lambda _: _destinations(
        _word("a URL such as https://HOST", addresses.upstream, addresses.UPSTREAM)
    ),
}


ROUTE_NAME = r"[A-Za-z0-9_.-]{1,63}"

_OF_ONE_ROUTE = ("listen", "host", "path", "strip_path", "upstream", "service")
"""What a route matches and where it leads: `defaults` cannot hold these."""


class Routes(Kind):
    """Names, each with a route's keys."""

    __slots__ = ()

    def label(self) -> str:
        """See `Kind.label`."""
        return "a mapping of names to routes"

    def read(self, node: Node, path: str, reader: Reader) -> Any:
        """Return the entries that are mappings; their keys are read once `defaults` are known."""
        mapping = expect_mapping(node, path, reader)
        if mapping is None:
            return BROKEN
        if not mapping.entries:
            reader.complain(mapping.place, path, "needs at least one route; write NAME: {...}")
        for name, entry in mapping.entries.items():
            if not re.fullmatch(ROUTE_NAME, name):
                message = f"{quoted(name)} is not a route's name; write letters, digits, _ . or -"
                reader.complain(entry.place, path, message)
        return {
            name: entry
            for name, entry in mapping.entries.items()
            if expect_mapping(entry.value, join(path, name), reader)
        }

    def schema(self) -> Schema:
        """Return an object with names as keys."""
        return {
            "type": "object",
            "minProperties": 1,
            "propertyNames": {"pattern": f"^{ROUTE_NAME}$"},
            "additionalProperties": {"$ref": "#/$defs/route"},
        }


_CONFIG_KEYS = section(Config).keys

_IN_SECTIONS: Final = {
    key.name: f"it belongs under {name}"
    for name, cls in (("limits", Limits), ("retries", Retries), ("timeouts", Timeouts))
    for key in section(cls).keys
}
_AT_TOP: Final = dict.fromkeys(
    ("defaults", "routes", *(key.name for key in _CONFIG_KEYS)),
    "it belongs to the top level of the document",
)

ROUTE: Final = section(Route, dict, elsewhere={**_IN_SECTIONS, **_AT_TOP})

DEFAULTS: Final = Section(
    tuple(key for key in ROUTE.keys if key.name not in _OF_ONE_ROUTE),
    elsewhere={
        **ROUTE.elsewhere,
        **dict.fromkeys(_OF_ONE_ROUTE, "it belongs to each route and has no default"),
    },
)

TOP: Final = Section(
    (
        Key(
            "listen",
            ADDRESSES,
            "where routes without a `listen` of their own are served: one address or a list",
            "localhost:8081",
        ),
        *(key for key in _CONFIG_KEYS if key.name == "admin"),
        Key("defaults", DEFAULTS, "keys for every route that does not write them itself"),
        Key("routes", Routes(), "what is served: a name for each route, and its keys"),
        *(key for key in _CONFIG_KEYS if key.name != "admin"),
    ),
    elsewhere={
        **_IN_SECTIONS,
        **{key.name: "it belongs to a route, under routes.NAME" for key in ROUTE.keys},
        **{key.name: "it belongs to a route, or to defaults" for key in DEFAULTS.keys},
    },
)
