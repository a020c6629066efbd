"""The metadata server's directory: what keys exist, and their text and JSON forms.  Pure.

Source: https://cloud.google.com/run/docs/container-contract#metadata-server (the keys that
Cloud Run has) and https://cloud.google.com/compute/docs/metadata/querying-metadata (listings
and ``recursive=true``).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Any

from proxy.emulator.claims import Instance, ServiceAccount


class Live(enum.Enum):
    """Keys whose value is made when asked for; they are listed but never in recursive JSON."""

    IDENTITY = "identity"
    TOKEN = "token"  # noqa: S105 (the name of a key)


Value = str | int | tuple[str, ...] | Live
Directory = dict[str, "Value | Directory"]
Node = Value | Directory


def build(instance: Instance, account: ServiceAccount | None) -> Directory:
    """Return everything under ``/computeMetadata/v1/``; no account, no keys for one."""
    place = f"projects/{instance.project_number}"
    accounts: Directory = {}
    if account is not None:
        accounts = {"default": _account(account), account.email: _account(account)}
    return {
        "instance": {
            "id": instance.instance_id,
            "region": f"{place}/regions/{instance.region}",
            "service-accounts": accounts,
            "zone": f"{place}/zones/{instance.zone}",
        },
        "project": {
            "numeric-project-id": instance.project_number,
            "project-id": instance.project_id,
        },
        "universe": {"universe-domain": "googleapis.com"},
    }


def _account(account: ServiceAccount) -> Directory:
    return {
        "aliases": ("default",),
        "email": account.email,
        "identity": Live.IDENTITY,
        "scopes": account.scopes,
        "token": Live.TOKEN,
    }


def find(directory: Directory, segments: Iterable[str]) -> Node | None:
    """Return what stands at the path, or None."""
    node: Node = directory
    for segment in segments:
        if not isinstance(node, dict) or segment not in node:
            return None
        node = node[segment]
    return node


def as_text(node: Directory | str | int | tuple[str, ...]) -> str:
    """Return a value, or a directory's listing, as the server writes it without ``recursive``."""
    if isinstance(node, dict):
        return "".join(
            f"{name}/\n" if isinstance(child, dict) else f"{name}\n" for name, child in node.items()
        )
    if isinstance(node, tuple):
        return "".join(f"{line}\n" for line in node)
    return str(node)


def as_json(node: Node) -> Any:
    """Return what ``recursive=true`` or ``alt=json`` shows: camelCase names, nothing live."""
    if isinstance(node, dict):
        return {
            _camel_case(name): as_json(child)
            for name, child in node.items()
            if not isinstance(child, Live)
        }
    return list(node) if isinstance(node, tuple) else node


def _camel_case(name: str) -> str:
    if "@" in name:  # An account's directory is named by its address, which may have dashes.
        return name
    first, *rest = name.split("-")
    return first + "".join(word.capitalize() for word in rest)
