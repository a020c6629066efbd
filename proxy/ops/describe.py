"""A configuration in words: for the status page, for the line at the start, for `check`."""

from __future__ import annotations

from typing import assert_never

from proxy.config.model import (
    AutoCredentials,
    Credentials,
    GcloudCredentials,
    Impersonate,
    MetadataCredentials,
    Route,
    ServiceAccountFile,
    TokenFile,
)


def credentials(value: Credentials) -> str:
    """Say where ID tokens come from, in the words of the configuration."""
    match value:
        case AutoCredentials():
            return "auto"
        case MetadataCredentials():
            return "metadata"
        case GcloudCredentials():
            return "gcloud"
        case ServiceAccountFile(path=path):
            return f"service_account_file {path}"
        case TokenFile(path=path):
            return f"token_file {path}"
        case Impersonate():
            return _impersonation(value)
        case _:
            assert_never(value)


def _impersonation(value: Impersonate) -> str:
    through = f" through {', '.join(value.delegates)}" if value.delegates else ""
    return f"impersonate {value.service_account}{through} with {credentials(value.source)}"


def matches(route: Route) -> str:
    """Say which requests a route serves: ``host/path`` for each of its hosts."""
    path = route.path if route.path == "/" else f"{route.path}/…"
    return ", ".join(f"{host}{path}" for host in route.host) or path


def upstream(route: Route) -> str:
    """Say where a route leads; a service that is not resolved yet by its name."""
    if route.upstream is not None:
        return str(route.upstream)
    return f"service {route.service}" if route.service is not None else "unresolved"
