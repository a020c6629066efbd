"""Proxies in front of protected services, for tests from end to end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

from proxy.emulator.metadata import MetadataServer
from proxy.emulator.service import ProtectedService
from tests.fakes.program import Program


def config_for(service: ProtectedService, *, route: Mapping[str, Any], **top: Any) -> str:
    """Return a configuration with one route, ``default``, to `service`, on free ports.

    `route` and `top` are more keys of the route and of the document.  It is JSON, which is YAML.
    """
    default = {"upstream": service.url, "ca_file": str(service.ca_file), **route}
    document = {
        "listen": "127.0.0.1:0",
        "admin": "127.0.0.1:0",
        "routes": {"default": default},
        **top,
    }
    return json.dumps(document)


class Proxies:
    """Starts proxies for one test; when `stack` closes, each is drained and must exit with 0."""

    def __init__(self, metadata: MetadataServer, stack: AsyncExitStack) -> None:
        self._metadata = metadata
        self._stack = stack

    async def to(
        self,
        service: ProtectedService,
        *,
        route: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
        **top: Any,
    ) -> Program:
        """Start a proxy in front of `service`; see `config_for`."""
        return await self.run(config_for(service, route=route or {}, **top), env=env)

    async def run(
        self, config: str | None, *arguments: str, env: Mapping[str, str] | None = None
    ) -> Program:
        """Start a proxy with this configuration, or with these arguments alone."""
        environment = {**self._metadata.environ, **(env or {})}
        program = Program(config, *arguments, env=environment)
        return await self._stack.enter_async_context(program)
