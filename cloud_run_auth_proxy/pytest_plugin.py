"""Fixtures for pytest, there as soon as the distribution is installed.

=====================  ==========================================================================
`metadata_server`      an emulated metadata server; ``.environ`` leads to it, ``.inject`` breaks it
`cloud_run_app`        what runs in the service: None for an echo; override it with host and port
`cloud_run_service`    a private service before that, which admits tokens for its ``.url`` alone
`auth_proxy`           a proxy before that; call ``.url``
=====================  ==========================================================================

They run in threads of their own, so that tests may block or be coroutines of any plugin's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from proxy.embedded import AuthProxy
    from proxy.emulator import MetadataServer, ProtectedService


@pytest.fixture
def metadata_server() -> Iterator[MetadataServer]:
    """Google's metadata server, emulated; at the end it raises what it could not handle."""
    from cloud_run_auth_proxy import Background, emulator  # noqa: PLC0415 (only where it is used)

    with Background(emulator.MetadataServer()) as server:
        yield server


@pytest.fixture
def cloud_run_app() -> tuple[str, int] | Path | None:
    """Where the app listens that the service runs, None for one that echoes."""
    return None


@pytest.fixture
def cloud_run_service(
    metadata_server: MetadataServer, cloud_run_app: tuple[str, int] | Path | None
) -> Iterator[ProtectedService]:
    """A private Cloud Run service, emulated, with TLS."""
    from cloud_run_auth_proxy import Background, emulator  # noqa: PLC0415 (only where it is used)

    service = emulator.ProtectedService(metadata_server.keys, app=cloud_run_app)
    with Background(service) as running:
        yield running


@pytest.fixture
def auth_proxy(
    metadata_server: MetadataServer, cloud_run_service: ProtectedService
) -> Iterator[AuthProxy]:
    """The proxy, in this process, before `cloud_run_service`, with tokens of `metadata_server`."""
    from cloud_run_auth_proxy import AuthProxy  # noqa: PLC0415 (only where it is used)

    with AuthProxy(
        cloud_run_service.url,
        environ=metadata_server.environ,
        credentials="metadata",
        ca_file=str(cloud_run_service.ca_file),
    ) as proxy:
        yield proxy
