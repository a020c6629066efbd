"""How credentials are written: a word, or a mapping that names one kind with its details."""

from __future__ import annotations

from typing import Any

from proxy.config import values
from proxy.config.files import File, check_readable
from proxy.config.kinds import BROKEN, Choice, ListOf, Reader, Word, pattern
from proxy.config.model import (
    AutoCredentials,
    Credentials,
    GcloudCredentials,
    Impersonate,
    MetadataCredentials,
    ServiceAccountFile,
    TokenFile,
)
from proxy.config.sections import Key, Section, WordOrSection, join
from proxy.config.tree import MapNode

_WORDS = Choice(
    {
        "auto": AutoCredentials(),
        "metadata": MetadataCredentials(),
        "gcloud": GcloudCredentials(),
    }
)
_ACCOUNT = Word("a service account", values.account, pattern(values.ACCOUNT))
_KEY_FILE = Key(
    "service_account_file", File(check_readable), "a service account's key file, as JSON"
)
_WITH_IMPERSONATE = ("delegates", "source")


def _finish(
    found: dict[str, Any], node: MapNode, path: str, reader: Reader, *, kinds: tuple[str, ...]
) -> Any:
    """Make the credentials; exactly one of `kinds` must have been written."""
    written = [name for name in node.entries if name in kinds]
    if len(written) != 1:
        place = node.entries[written[1]].place if written else node.place
        reader.complain(place, path, f"write exactly one of {', '.join(kinds)}")
        return BROKEN
    kind = written[0]
    for name in _WITH_IMPERSONATE:
        if kind != "impersonate" and name in found:
            message = "goes with impersonate only; remove it"
            reader.complain(node.entries[name].place, join(path, name), message)
    return _make(kind, found) if kind in found else BROKEN


def _make(kind: str, found: dict[str, Any]) -> Credentials:
    if kind == "service_account_file":
        return ServiceAccountFile(found[kind])
    if kind == "token_file":
        return TokenFile(found[kind])
    return Impersonate(
        found[kind], found.get("delegates", ()), found.get("source", AutoCredentials())
    )


def _finish_source(found: dict[str, Any], node: MapNode, path: str, reader: Reader) -> Any:
    return _finish(found, node, path, reader, kinds=("service_account_file",))


def _finish_whole(found: dict[str, Any], node: MapNode, path: str, reader: Reader) -> Any:
    kinds = ("service_account_file", "impersonate", "token_file")
    return _finish(found, node, path, reader, kinds=kinds)


_SOURCE = WordOrSection(
    # An ID token in a file proves who calls, but grants no access to the IAM API; and a chain of
    # accounts is what delegates are for.
    single=_WORDS,
    section=Section(
        (_KEY_FILE,),
        elsewhere={
            "impersonate": "list the accounts in between as delegates",
            "token_file": "an ID token cannot be used to impersonate",
        },
    ),
    finish=_finish_source,
)


def show(credentials: Credentials) -> str:
    """Return the credentials in one short line, for people."""
    match credentials:
        case ServiceAccountFile(path):
            return f"service_account_file: {path}"
        case TokenFile(path):
            return f"token_file: {path}"
        case Impersonate(account):
            return f"impersonate: {account}"
        case _:
            return str(_WORDS.show(credentials))


CREDENTIALS = WordOrSection(
    single=_WORDS,
    section=Section(
        (
            _KEY_FILE,
            Key("impersonate", _ACCOUNT, "the service account to act as"),
            Key(
                "delegates",
                ListOf(_ACCOUNT, "a list of service accounts"),
                "accounts between the source and the one to act as, in order",
            ),
            Key("source", _SOURCE, "credentials that may impersonate; default auto"),
            Key(
                "token_file",
                File(check_readable),
                "a file that holds an ID token; re-read when it changes",
            ),
        )
    ),
    finish=_finish_whole,
    alternatives=(
        ("service_account_file",),
        ("impersonate", "delegates", "source"),
        ("token_file",),
    ),
    write=show,
)
