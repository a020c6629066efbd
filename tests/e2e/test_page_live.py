"""The page in a browser, in front of a proxy that really serves."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Page, async_playwright, expect

from proxy.emulator.service import ProtectedService
from tests.fakes import leaks, sessions
from tests.fakes.browser import CHROMIUM, QUIET
from tests.fakes.program import A_TOKEN
from tests.fakes.proxies import Proxies

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield await browser.new_page()
        await browser.close()


async def test_traffic_and_an_error_with_its_explanation_arrive_on_the_page(
    proxies: Proxies, service: ProtectedService, page: Page
) -> None:
    complaints: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: complaints.append(f"{message.type} {message.text}"))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    route = {"upstream": service.url, "ca_file": str(service.ca_file)}
    program = await proxies.run(
        json.dumps(
            {
                "listen": "127.0.0.1:0",
                "admin": "127.0.0.1:0",
                "routes": {
                    "orders": route,
                    # Nobody listens on port 1.
                    "broken": {**route, "path": "/broken", "upstream": "http://127.0.0.1:1"},
                },
            }
        )
    )
    await page.goto(program.admin_url)
    await expect(page.get_by_role("row", name="orders")).to_contain_text("Idle")

    async with sessions.session() as session:
        for path, status in (("/a", 200), ("/b", 200), ("/broken", 502)):
            async with session.get(program.url + path) as answer:
                assert answer.status == status

    await expect(page.get_by_role("row", name="orders")).to_contain_text("OK")
    await expect(page.get_by_role("row", name="broken")).to_contain_text("Failing")
    await expect(page.locator("#route-orders .token")).to_contain_text("Valid")
    await expect(page.locator("#route-orders .left")).to_have_text(re.compile(r"expires in \d+:\d"))
    await expect(page.locator("#route-orders")).to_contain_text(service.url)
    failure = page.locator("#failures li")
    await expect(failure.locator(".code")).to_have_text("502 upstream_connect_failed")
    await expect(failure.locator(".hint")).not_to_be_empty()
    leaks.look("the page", await page.content())
    assert A_TOKEN.search(await page.content()) is None
    assert complaints == []
    assert [url for url in asked if not url.startswith(program.admin_url)] == []
