"""From a field of `model` to a key of the file: the table of all kinds, by their names there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any

from proxy.config import addresses, values
from proxy.config.credentials import CREDENTIALS
from proxy.config.files import File, check_certificates
from proxy.config.kinds import (
    Choice,
    Count,
    Flag,
    Kind,
    ListOf,
    Reader,
    ScalarKind,
    Schema,
    Word,
    any_of,
    or_variable,
    pattern,
)
from proxy.config.model import RETRY_CAUSES, Admin
from proxy.config.sections import ABSENT, HeaderValues, Key, Section, WordOrSection
from proxy.config.tree import MapNode, ScalarNode

_DURATION_OR_OFF = f"off|{values.DURATION}"


def section(cls: Any, build: Callable[..., Any] | None = None, **more: Any) -> Section:
    """Return the section whose keys are the fields of `cls`; it builds a `cls` by default."""
    keys = tuple(_key(each) for each in fields(cls) if "kind" in each.metadata)
    return Section(keys, cls if build is None else build, **more)


def _key(field: Field[Any]) -> Key:
    kind = KINDS[field.metadata["kind"]](field.metadata)
    default = field.metadata.get("written", ABSENT)
    in_words = "shown" in field.metadata or isinstance(kind, Section)
    if default is ABSENT and not in_words and field.default is not MISSING:
        default = kind.show(field.default)
    return Key(field.name, kind, field.metadata["help"], default, field.metadata.get("shown", ""))


def _word(label: str, parse: Callable[[str], Any], regex: str) -> Word:
    return Word(label, parse, pattern(regex))


def _duration(parse: Callable[[str], float], regex: str) -> Word:
    # A number without its unit is no text either; `parse` says how to mend it.
    return Word(
        "a duration such as 5s", parse, pattern(regex), write=values.show_duration, is_text=False
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
    "credentials": lambda _: CREDENTIALS,
    "deadline": lambda _: _duration(values.deadline, _DURATION_OR_OFF),
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
    "section": lambda metadata: section(metadata["of"]),
    "service": lambda _: _word("a service's name", values.service, values.SERVICE),
    "share": lambda _: _SHARE,
    "size": lambda _: _SIZE,
    "upstream": lambda _: _word(
        "a URL such as https://HOST", addresses.upstream, addresses.UPSTREAM
    ),
}
