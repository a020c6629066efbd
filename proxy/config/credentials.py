"""The kinds of credentials that the file can name, by the words that it has for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proxy.config.model import (
    AutoCredentials,
    GcloudCredentials,
    Impersonate,
    MetadataCredentials,
    ServiceAccountFile,
    TokenFile,
)
from proxy.frozen import frozen


@frozen
class CredentialsKind:
    """One kind of credentials: the class that holds them, and what they cannot be used for."""

    cls: type[Any]
    """Without fields: a word of the file.  Else a mapping, in which the kind's own name holds the
    first field and the others stand beside it by their own names."""
    no_source: str = ""
    """Why they cannot be the source of an impersonation, and what to write; empty if they can."""


CREDENTIALS: Mapping[str, CredentialsKind] = {
    "auto": CredentialsKind(AutoCredentials),
    "metadata": CredentialsKind(MetadataCredentials),
    "gcloud": CredentialsKind(GcloudCredentials),
    "service_account_file": CredentialsKind(ServiceAccountFile),
    "impersonate": CredentialsKind(
        Impersonate, no_source="list the accounts in between as delegates"
    ),
    # It proves who calls, but grants no access to the IAM API.
    "token_file": CredentialsKind(TokenFile, no_source="an ID token cannot be used to impersonate"),
}
"""Every kind of credentials by its name in the file.

They are read (`keys`), shown (`show`) and described (`schema`) by this table.  How each is
opened stands in `identity.caches`, how `doctor` examines some of them in `doctor.credentials`.
"""
