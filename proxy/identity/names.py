"""Names that the metadata server knows: the URL of a Cloud Run service, the project we run in.

What the configuration leaves out of a service's name is read once.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace

from proxy.config.addresses import service_upstream
from proxy.config.model import Service, Upstream
from proxy.identity.metadata import Metadata, NoSuchKey
from proxy.identity.source import TokenSourceError

_PROJECT = "project/project-id"
_PROJECT_NUMBER = "project/numeric-project-id"
_REGION = "instance/region"
_ZONE = "instance/zone"

# URLs and log lines are made of these, so that nothing else may come in.
_FORMS = {
    # Of projects that belonged to a domain once: example.com:shop-1.
    _PROJECT: re.compile(r"([a-z0-9.-]{1,253}:)?[a-z][a-z0-9-]{4,28}[a-z0-9]"),
    _PROJECT_NUMBER: re.compile(r"[0-9]{1,20}"),
    _REGION: re.compile(r"projects/[0-9]+/regions/[a-z]+(-[a-z]+)*[0-9]+"),
    _ZONE: re.compile(r"projects/[0-9]+/zones/[a-z]+(-[a-z]+)*[0-9]+-[a-z0-9]+"),
}


class Names:
    """Turns service names into upstreams; asks the metadata server at most once for each fact."""

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata
        self._facts: dict[str, str] = {}
        self._turn = asyncio.Lock()

    async def resolve(self, service: Service) -> Upstream:
        """Return the upstream of `service`; raise `TokenSourceError` if a part stays unknown."""
        async with self._turn:
            try:
                number = service.project_number or await self._fact(_PROJECT_NUMBER)
                region = service.region or await self._region()
            except TokenSourceError as error:
                raise _unresolved(service, error) from error
        try:
            return service_upstream(replace(service, region=region, project_number=number))
        except ValueError as error:
            raise TokenSourceError(
                f"service {service.name} has no deterministic URL: {error}",
                hint="Set the route's upstream to the URL that "
                f"`gcloud run services describe {service.name} --region={region}` prints.",
            ) from None

    async def project(self) -> str:
        """Return the id of the project; raise `TokenSourceError` where it is not to be had."""
        return await self._fact(_PROJECT)

    async def _region(self) -> str:
        try:
            return (await self._fact(_REGION)).rpartition("/")[2]
        except NoSuchKey:
            pass
        # Compute Engine and GKE have only the zone: projects/NUMBER/zones/us-central1-a.
        return (await self._fact(_ZONE)).rpartition("/")[2].rpartition("-")[0]

    async def _fact(self, key: str) -> str:
        if key not in self._facts:
            self._facts[key] = await self._metadata.read(key, _FORMS[key])
        return self._facts[key]


def _unresolved(service: Service, error: TokenSourceError) -> TokenSourceError:
    return TokenSourceError(
        f"service {service} cannot be resolved: metadata server: {error.detail}",
        hint=f"Write service: {service.name}.REGION.PROJECT_NUMBER, or use upstream instead.",
        retryable=error.retryable,
    )
