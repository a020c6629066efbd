"""Where a route's ID tokens come from, and why not from somewhere else."""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from proxy.config.misplaced import no_file_name, shown_file
from proxy.config.model import (
    AutoCredentials,
    Credentials,
    GcloudCredentials,
    Impersonate,
    MetadataCredentials,
    ServiceAccountFile,
    TokenFile,
)
from proxy.doctor.findings import Advice, Finding, Outcome, Step, failed, skipped
from proxy.doctor.words import advice_in, email, sentence
from proxy.frozen import frozen
from proxy.identity.adc import VARIABLE, well_known_file
from proxy.identity.caches import TokenCaches
from proxy.identity.files import CredentialsFile, read_small
from proxy.identity.metadata import NOT_HERE, Metadata, NoSuchKey
from proxy.identity.source import TokenSourceError
from proxy.redact import redact_foreign

EMAIL_KEY = "instance/service-accounts/default/email"

_KINDS = {
    "service_account": "a service account's key",
    "authorized_user": "a person's gcloud login",
    "external_account": "a workload of another cloud (workload identity federation)",
    "impersonated_service_account": "a service account that is impersonated",
    "external_account_authorized_user": "a person of a workforce pool",
}


@frozen
class Origin:
    """The credentials that were found."""

    finding: Finding
    account: Finding | None = None
    """Known already if the metadata server was asked; None if only the source knows it."""

    @property
    def usable(self) -> bool:
        """Whether it makes sense to fetch a token."""
        return not any(
            each is not None and each.outcome is Outcome.FAILED
            for each in (self.finding, self.account)
        )


@frozen
class Surroundings:
    """Where the doctor looks for credentials."""

    environ: Mapping[str, str] = field(repr=False)
    metadata: Metadata
    caches: TokenCaches
    within: float
    """Seconds that the metadata server has."""


async def find_origin(credentials: Credentials, around: Surroundings) -> Origin:
    """Examine the credentials; describe those of a kind without examination by their source."""
    look = LOOKS.get(type(credentials))
    if look is None:
        source = around.caches.source(credentials)
        return Origin(Finding(step=Step.CREDENTIALS, text=source.describe()))
    return await look(credentials, around)


async def _login(credentials: GcloudCredentials, around: Surroundings) -> Origin:
    del credentials
    return _file(well_known_file(around.environ), (), around.environ)


async def _key(credentials: ServiceAccountFile, around: Surroundings) -> Origin:
    missing = "Put the key there, or correct its name."
    return _file(CredentialsFile(credentials.path, missing), (), around.environ)


async def _metadata(credentials: MetadataCredentials, around: Surroundings) -> Origin:
    del credentials
    return await _server(around, ())


async def _automatic(credentials: AutoCredentials, around: Surroundings) -> Origin:
    """Follow Google's order (https://google.aip.dev/auth/4110)."""
    del credentials
    environ = around.environ
    if named := environ.get(VARIABLE):
        missing = f"Correct or unset {VARIABLE}, which names it."
        return _file(CredentialsFile(Path(named), missing), (f"{VARIABLE} names it",), environ)
    login = well_known_file(environ)
    unset = f"{VARIABLE} is not set"
    if login.path.is_file():
        return _file(login, (unset,), environ)
    absent = f"no gcloud login in {_short(login.path, environ)}"
    return await _server(around, (unset, absent))


def _short(path: Path, environ: Mapping[str, str]) -> str:
    """Return a file's name with ``~`` for the home directory, as a shell takes it."""
    home = environ.get("HOME", "")
    text = shown_file(str(path))
    return f"~{text.removeprefix(home)}" if home and text.startswith(f"{home}/") else text


# Files


def _file(file: CredentialsFile, notes: tuple[str, ...], environ: Mapping[str, str]) -> Origin:
    name = _short(file.path, environ)
    try:
        kind = _kind(read_small(file.path, file.if_missing))
    except TokenSourceError as error:
        return Origin(_broken(file.path, name, error, notes))
    facts = {"source": "file", "file": file.shown, "kind": kind}
    text = f"{name}: {_KINDS.get(kind, f'type {redact_foreign(kind)}')}"
    return Origin(Finding(step=Step.CREDENTIALS, text=text, notes=notes, facts=facts))


def _kind(content: bytes) -> str:
    try:
        info = json.loads(content)
    except (ValueError, RecursionError):  # The cause would quote the file, which is a secret.
        info = None
    if not isinstance(info, dict):
        raise TokenSourceError("it is not a JSON object", hint="Create the file again.") from None
    return str(info.get("type"))


async def _token_file(credentials: TokenFile, around: Surroundings) -> Origin:
    path = credentials.path
    name = _short(path, around.environ)
    try:
        read_small(path, "Whatever renews the token has to keep one in this file.")
    except TokenSourceError as error:
        return Origin(_broken(path, name, error, ()))
    facts = {"source": "token_file", "file": shown_file(str(path))}
    return Origin(Finding(step=Step.CREDENTIALS, text=f"{name}: a token file", facts=facts))


def _broken(path: Path, name: str, error: TokenSourceError, notes: tuple[str, ...]) -> Finding:
    fix, command = advice_in(error.hint)
    advice = Advice(
        reason="credentials_unusable",
        why=f"The credentials file cannot be used: {error.detail}.",
        fix=fix,
        command=command or ("" if no_file_name(str(path)) else f"ls -l {shlex.quote(str(path))}"),
    )
    return Finding(
        step=Step.CREDENTIALS,
        outcome=Outcome.FAILED,
        text=f"{name}: {error.detail}",
        notes=notes,
        advice=advice,
    )


async def _impersonating(credentials: Impersonate, around: Surroundings) -> Origin:
    """Say who impersonates; the account is the one to act as, whoever the source is."""
    origin = await find_origin(credentials.source, around)
    through = f" through {', '.join(credentials.delegates)}" if credentials.delegates else ""
    found = origin.finding
    finding = Finding(
        step=Step.CREDENTIALS,
        outcome=found.outcome,
        text=f"impersonation of {credentials.service_account}{through}",
        notes=(f"by {found.text}", *found.notes),
        advice=found.advice,
        facts={**found.facts, "impersonates": credentials.service_account},
    )
    broken = origin.account is not None and origin.account.outcome is Outcome.FAILED
    return Origin(finding, origin.account if broken else None)


# The metadata server


async def _server(around: Surroundings, notes: tuple[str, ...]) -> Origin:
    metadata, within = around.metadata, around.within
    server = f"metadata server at {metadata.host}"
    facts = {"source": "metadata", "host": metadata.host}
    finding = Finding(step=Step.CREDENTIALS, text=server, notes=notes, facts=facts)
    try:
        async with asyncio.timeout(within):
            told = await metadata.read(EMAIL_KEY)
    except TimeoutError:
        error = TokenSourceError(f"no answer within {within:g} s", slow=True)
        return Origin(finding, _account_untold(error))
    except NoSuchKey as error:
        return Origin(finding, _no_account(error))
    except TokenSourceError as error:
        if error.hint == NOT_HERE:
            return Origin(_no_server(server, error, notes))
        return Origin(finding, _account_untold(error))
    return Origin(finding, account_found(email(told)))


def account_found(name: str) -> Finding:
    """Return the finding of an account, which is not known where `name` is empty."""
    if not name:
        return skipped(Step.ACCOUNT, "not told")
    return Finding(step=Step.ACCOUNT, text=name, facts={"email": name})


def _no_server(server: str, error: TokenSourceError, notes: tuple[str, ...]) -> Finding:
    why = "There are no credentials: neither a file nor a metadata server that answers."
    if not notes:  # Only the metadata server was asked for.
        why = "The metadata server does not answer."
    fix, command = advice_in(NOT_HERE)
    advice = Advice(reason="credentials_missing", why=why, fix=fix, command=command)
    text = f"{server}: {error.detail}"
    return Finding(
        step=Step.CREDENTIALS, outcome=Outcome.FAILED, text=text, notes=notes, advice=advice
    )


def _no_account(error: TokenSourceError) -> Finding:
    fix, command = advice_in(error.hint)
    # The server's own sentence is part of it; the tags of a page are not.
    told, _, came = error.detail.partition(" (")
    why = sentence(told if "<" in came else error.detail)
    advice = Advice(reason="account_missing", why=why, fix=fix, command=command)
    return failed(Step.ACCOUNT, "none", advice)


def _account_untold(error: TokenSourceError) -> Finding:
    # Calls need the token and not the account's name, so this alone is not a failure.
    return skipped(Step.ACCOUNT, f"not told: {error.detail}")


LOOKS: Mapping[type[Credentials], Callable[[Any, Surroundings], Awaitable[Origin]]] = {
    AutoCredentials: _automatic,
    MetadataCredentials: _metadata,
    GcloudCredentials: _login,
    ServiceAccountFile: _key,
    TokenFile: _token_file,
    Impersonate: _impersonating,
}
"""How each kind of credentials is examined before a token is fetched."""
