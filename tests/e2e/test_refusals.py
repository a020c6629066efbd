"""What the log says of calls that Google's front end refuses: why, and what to type."""

from __future__ import annotations

import pytest

from proxy.emulator.metadata import MetadataServer
from proxy.emulator.service import ProtectedService
from tests.fakes import sessions
from tests.fakes.program import Program
from tests.fakes.proxies import Proxies


async def statuses(proxy: Program, times: int) -> list[int]:
    """Call so often, and return the statuses."""
    found = []
    async with sessions.session() as session:
        for _ in range(times):
            async with session.get(proxy.url) as response:
                assert "x-auth-proxy-error" not in response.headers
                found.append(response.status)
    return found


def explanations(proxy: Program) -> list[dict[str, object]]:
    """Return the log's lines that explain a refusal."""
    return [r for r in proxy.records() if r.get("logger") == "proxy.plane.refused"]


async def test_a_403_is_explained_once_a_minute_with_the_command_that_grants_the_role(
    metadata: MetadataServer, proxies: Proxies
) -> None:
    async with ProtectedService(metadata.keys, invokers=frozenset()) as service:
        proxy = await proxies.to(service)
        assert await statuses(proxy, 3) == [403, 403, 403]
        await proxy.record(logger="proxy.plane.refused", reason="upstream_403")

    (line,) = explanations(proxy)
    assert line["route"] == "default"
    assert "gcloud run services add-iam-policy-binding" in str(line["hint"])
    assert "--role=roles/run.invoker" in str(line["hint"])
    assert metadata.account is not None
    assert f"--member=serviceAccount:{metadata.account.email}" in str(line["hint"])


async def test_a_401_is_explained_with_account_and_audience(
    metadata: MetadataServer, proxies: Proxies
) -> None:
    async with ProtectedService(metadata.keys) as service:
        proxy = await proxies.to(service, route={"audience": "https://wrong.example"})
        assert await statuses(proxy, 2) == [401, 401]
        line = await proxy.record(logger="proxy.plane.refused", reason="upstream_401")

    assert "https://wrong.example" in line["message"]
    assert "audience" in line["hint"]
    assert len(explanations(proxy)) == 1


async def test_the_page_of_internal_ingress_is_explained(
    metadata: MetadataServer, proxies: Proxies
) -> None:
    async with ProtectedService(metadata.keys) as service:
        service.ingress = "internal"
        proxy = await proxies.to(service)
        assert await statuses(proxy, 2) == [404, 404]
        line = await proxy.record(logger="proxy.plane.refused", reason="upstream_404")

    assert "ingress" in line["hint"]
    assert len(explanations(proxy)) == 1


@pytest.mark.parametrize("path", ["/", "/hello"])
async def test_a_call_that_succeeds_is_not_explained(
    proxies: Proxies, service: ProtectedService, path: str
) -> None:
    proxy = await proxies.to(service)
    async with sessions.session() as session, session.get(proxy.url + path) as response:
        assert response.status == 200

    assert explanations(proxy) == []
