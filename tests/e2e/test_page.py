"""The status page in a real browser: headless Chromium, driven by Playwright."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe  # type: ignore[import-untyped] # no stubs
from playwright.async_api import Browser, Page, Request, async_playwright, expect

from proxy.clock import Clocks
from proxy.config.model import Address, Admin, Auth, Config, Destination, Route, Upstream
from proxy.ops.admin import AdminServer, AdminView
from proxy.ops.lifecycle import Lifecycle, State
from proxy.ops.numbers import Numbers, TokenView
from proxy.ops.status import Status
from proxy.plane.stats import Connections, DestinationStats, Failure, RouteStats, Stats
from tests.fakes.browser import CHROMIUM, QUIET

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]

LISTEN = Address("127.0.0.1", 8080)
CONFIG = Config(
    routes=(
        Route(
            name="orders",
            listen=(LISTEN,),
            path="/orders",
            destinations=(
                Destination(
                    upstream=Upstream("https", "orders.run.app", 443),
                    audience="https://orders.run.app",
                ),
            ),
        ),
        Route(
            name="local",
            listen=(LISTEN,),
            destinations=(Destination(upstream=Upstream("http", "127.0.0.1", 3001)),),
            auth=Auth.NONE,
        ),
    ),
    source="config/proxy.yaml",
)
TOKEN = TokenView(state="good", account="app@x.iam.gserviceaccount.com", source="metadata server")


class Proxy:
    """What the page shows: numbers that a test changes, on clocks that it turns."""

    def __init__(self) -> None:
        self.wall, self.steady = 1_767_323_000.0, 0.0
        clocks = Clocks(wall=lambda: self.wall, steady=lambda: self.steady)
        self.stats = Stats()
        self.stats.route("orders")
        self.tokens = {"orders": replace(TOKEN, expires_at=self.wall + 3600)}
        self.lifecycle = Lifecycle(clocks)
        self.lifecycle.move_to(State.SERVING)
        self.config = CONFIG
        self.status = Status(
            self.lifecycle, lambda: self.config, lambda: self.config.listeners, clocks
        )
        # Points are taken when a test says so.
        self.status.sample_seconds = 3600.0
        self.address = Address("127.0.0.1", 0)
        self.server = self._server()

    def _server(self) -> AdminServer:
        view = AdminView(
            lifecycle=self.lifecycle, numbers=self._numbers, status=self.status, quit=lambda: None
        )
        return AdminServer(Admin(listen=self.address), view)

    @property
    def url(self) -> str:
        return f"http://{self.address}/"

    @property
    def orders(self) -> RouteStats:
        return self.stats.route("orders")

    async def start(self) -> None:
        """Listen, after a stop on the same port again."""
        self.server = self._server()
        self.address = await self.server.start()

    async def _numbers(self) -> Numbers:
        return self._now()

    def _now(self) -> Numbers:
        return Numbers(stats=self.stats, tokens=self.tokens)

    def serve(self, count: int, code: int = 200, seconds: float = 0.02) -> None:
        """Count exchanges of the route orders."""
        self.orders.requests["h1", code] += count
        for _ in range(count):
            self.orders.duration.observe(seconds)

    def fail(self, reason: str = "upstream_reset", status: int = 502, **text: str) -> None:
        """Count one failed exchange of the route orders."""
        self.serve(1, status)
        self.orders.errors[reason] += 1
        words = {"detail": "orders.run.app closed the connection.", "hint": "Ask it.", **text}
        self.stats.failures.append(Failure(self.wall, "orders", reason, status, **words))

    def pass_time(self, seconds: float = 5.0) -> None:
        """Let time pass and take a point."""
        self.wall += seconds
        self.steady += seconds
        self.status.sample(self._now())


class Visit:
    """A tab that shows the page, and all that it asked for and complained about."""

    def __init__(self, page: Page, proxy: Proxy) -> None:
        self.page = page
        self.proxy = proxy
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page.on("request", self._requested)
        page.on("console", lambda message: self._said(message.type, message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _requested(self, request: Request) -> None:
        self.requests.append(request.url)

    def _said(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(text)

    async def open(self) -> None:
        """Load the page and wait for its first numbers."""
        await self.page.clock.install(time=self.proxy.wall)
        await self.page.clock.pause_at(self.proxy.wall + 1)
        await self.page.goto(self.proxy.url)
        await expect(self.page.locator("#live")).to_have_text("Live")

    async def poll(self, seconds: float = 2.1) -> None:
        """Let the page's timers run for some seconds."""
        await self.page.clock.run_for(int(seconds * 1000))

    async def poll_until_live(self) -> None:
        """Let the page ask, as seldom as it does after failures, until it is answered.

        More than once: its first question may still meet the connection of the proxy that was.
        """
        for _ in range(3):
            await self.poll(16)
            with suppress(AssertionError):
                await expect(self.text("#live")).to_have_text("Live", timeout=2000)
                return
        await expect(self.text("#live")).to_have_text("Live")

    def text(self, selector: str) -> Any:
        return self.page.locator(selector)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def proxy() -> AsyncIterator[Proxy]:
    proxy = Proxy()
    await proxy.start()
    yield proxy
    await proxy.server.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def visit(browser: Browser, proxy: Proxy) -> AsyncIterator[Visit]:
    context = await browser.new_context()
    yield Visit(await context.new_page(), proxy)
    await context.close()


async def test_the_page_shows_state_routes_and_tokens(visit: Visit) -> None:
    visit.proxy.serve(100)
    visit.proxy.pass_time()
    await visit.open()

    await expect(visit.page).to_have_title("Cloud Run Auth Proxy")
    await expect(visit.text("#state")).to_have_text("Serving")
    await expect(visit.text("#facts")).to_contain_text("listening on 127.0.0.1:8080")
    row = visit.page.get_by_role("row", name="orders")
    await expect(row.get_by_role("cell")).to_have_text(
        ["OK", "20/s", "0 %", "18 ms", "25 ms", "0", "59:55 left"]
    )
    card = visit.text("#route-orders")
    await expect(card).to_contain_text("https://orders.run.app")
    await expect(card).to_contain_text("app@x.iam.gserviceaccount.com")
    await expect(card).to_contain_text("ID token in X-Serverless-Authorization")
    await expect(visit.text("#route-local")).to_contain_text("This route sends none.")


async def test_the_page_asks_only_its_own_listener_and_complains_of_nothing(visit: Visit) -> None:
    visit.proxy.serve(10)
    visit.proxy.fail()
    visit.proxy.pass_time()
    await visit.open()
    for _ in range(3):
        await visit.poll()
        visit.proxy.pass_time()

    assert visit.complaints == []
    assert {url for url in visit.requests if not url.startswith(visit.proxy.url)} == set()
    assert len(visit.requests) > 10


async def test_the_page_updates_itself_under_traffic(visit: Visit) -> None:
    visit.proxy.pass_time()
    await visit.open()
    row = visit.page.get_by_role("row", name="orders")

    await expect(row).to_contain_text("Idle")

    visit.proxy.serve(500)
    visit.proxy.orders.in_flight = 7
    visit.proxy.orders.connections = lambda: Connections(idle=2, busy=3, waiting=4)
    visit.proxy.pass_time()
    await visit.poll()

    await expect(row).to_contain_text("50/s")
    await expect(visit.text("#route-orders .pool")).to_have_text(
        "3 busy, 2 idle, 4 exchanges waiting (limit 1,000)"
    )
    await expect(visit.text("#tiles")).to_contain_text("In flight7")


async def test_the_graphs_are_drawn_and_say_what_they_show(visit: Visit) -> None:
    visit.proxy.serve(100)
    visit.proxy.pass_time()
    visit.proxy.serve(50)
    visit.proxy.serve(10, 404)
    visit.proxy.serve(40, 503)
    visit.proxy.pass_time()
    await visit.open()
    traffic, latency = (visit.text(f"#route-orders .{kind} svg") for kind in ("traffic", "latency"))

    await expect(traffic).to_have_accessible_name(
        "Traffic over the last 15 minutes: 200 requests, at most 20 per second; 40 failed, "
        "10 answered 4xx. Arrow keys read single points."
    )
    await expect(latency).to_have_accessible_name(re.compile(r"last p50 18 ms, p99 25 ms"))
    for series in ("fine", "client", "server"):
        await expect(traffic.locator(f".series.{series}")).to_have_attribute("d", re.compile("^M"))
    await expect(latency.locator(".series.p99")).to_have_attribute("d", re.compile("^M.*L"))


async def test_points_are_asked_for_only_when_there_are_others(visit: Visit) -> None:
    await visit.open()
    await visit.poll(6.1)
    await expect(visit.text("#facts")).to_be_visible()
    before = visit.requests.count(f"{visit.proxy.url}status")
    # Before time passes: a poll that is under way may bring the news already.
    async with visit.page.expect_response(f"{visit.proxy.url}status"):
        visit.proxy.pass_time()
        await visit.poll()

    assert before <= 1
    assert visit.requests.count(f"{visit.proxy.url}status?history=0") >= 3


async def test_an_error_is_shown_with_its_explanation(visit: Visit) -> None:
    await visit.open()

    await expect(visit.text("#no-failures")).to_be_visible()

    visit.proxy.fail(hint="Look at its log, or run `cloud-run-auth-proxy doctor orders`.")
    visit.proxy.wall += 3
    await visit.poll()
    failure = visit.text("#failures li")

    await expect(failure.get_by_role("heading")).to_have_text("The upstream closed the connection")
    await expect(failure.locator(".code")).to_have_text("502 upstream_reset")
    await expect(failure).to_contain_text("route orders")
    await expect(failure).to_contain_text("orders.run.app closed the connection.")
    await expect(failure.locator("code")).to_have_text("cloud-run-auth-proxy doctor orders")
    await expect(visit.text("#no-failures")).to_be_hidden()
    await expect(visit.page.get_by_role("row", name="orders")).to_contain_text("Failing")
    await expect(visit.page).to_have_title("1 failing: Cloud Run Auth Proxy")


async def test_a_token_counts_down_every_second(visit: Visit) -> None:
    await visit.open()
    left = visit.text("#route-orders .left")

    await expect(left).to_have_text("expires in 1:00:00")

    await visit.page.clock.run_for(1000)

    await expect(left).to_have_text("expires in 59:59")


async def test_a_token_that_cannot_be_had_says_why_and_what_to_do(visit: Visit) -> None:
    visit.proxy.tokens["orders"] = replace(
        TOKEN, state="backing_off", error="permission denied", hint="Grant the role.", failed_at=1.0
    )
    await visit.open()
    token = visit.text("#route-orders .token")

    await expect(token).to_contain_text("Not available")
    await expect(token).to_contain_text("Last fetch failed: permission denied")
    await expect(token).to_contain_text("Grant the role.")
    await expect(visit.text("#route-orders > summary")).to_contain_text("Failing")


async def test_data_is_shown_as_text_and_never_as_markup(visit: Visit) -> None:
    evil = "<img src=x onerror=alert(1)>`<script>alert(2)</script>`"
    visit.proxy.config = replace(CONFIG, routes=(replace(CONFIG.routes[0], name=evil),))
    visit.proxy.stats.failures.append(
        Failure(visit.proxy.wall, evil, evil, 502, detail=evil, hint=evil)
    )
    visit.proxy.pass_time()
    await visit.open()

    await expect(visit.text("#cards h3")).to_have_text(evil)
    await expect(visit.text("#failures .detail")).to_have_text(evil.replace("`", ""))
    assert await visit.page.locator("main img, main script").count() == 0
    assert visit.complaints == []


async def test_a_proxy_that_does_not_answer_is_said_and_found_again(visit: Visit) -> None:
    await visit.open()
    await visit.proxy.server.stop()
    await visit.poll()

    await expect(visit.text("#notice")).to_contain_text("The proxy does not answer.")
    await expect(visit.text("#live")).to_have_text("Not connected")
    await expect(visit.text("#announcer")).to_contain_text("The proxy does not answer.")

    await visit.proxy.start()
    await visit.poll_until_live()

    await expect(visit.text("#notice")).to_be_hidden()


async def test_a_hidden_tab_asks_seldom_and_at_once_when_it_is_shown(visit: Visit) -> None:
    await visit.open()
    await _set_hidden(visit.page, hidden=True)
    await visit.poll()  # What was planned before still happens.
    await visit.page.wait_for_load_state("networkidle")
    before = len(visit.requests)
    await visit.poll(20)

    assert len(visit.requests) == before

    async with visit.page.expect_request(re.compile("/status")):
        await _set_hidden(visit.page, hidden=False)


async def _set_hidden(page: Page, *, hidden: bool) -> None:
    await page.evaluate(
        """(hidden) => {
            Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        hidden,
    )


async def test_only_a_change_of_condition_is_announced(visit: Visit) -> None:
    visit.proxy.serve(10)
    await visit.open()
    announcer = visit.text("#announcer")

    await expect(announcer).to_have_text("")

    for _ in range(10):
        visit.proxy.fail()
    await visit.poll()

    await expect(announcer).to_have_text(
        "Route orders: 10 of 20 exchanges failed in the last minute."
    )

    for _ in range(14):
        visit.proxy.serve(10)
        visit.proxy.pass_time()
    await visit.poll()

    await expect(announcer).to_have_text("Route orders is fine again.")


async def test_the_page_is_usable_with_the_keyboard_alone(visit: Visit) -> None:
    visit.proxy.serve(100)
    visit.proxy.pass_time()
    await visit.open()
    keyboard = visit.page.keyboard
    await keyboard.press("Tab")

    await expect(visit.page.get_by_role("link", name="Skip to the routes")).to_be_focused()
    assert await _has_outline(visit.page)

    await keyboard.press("Enter")
    await keyboard.press("Tab")
    await expect(visit.page.get_by_role("region", name="Table of routes")).to_be_focused()
    await keyboard.press("Tab")
    await expect(visit.page.get_by_role("link", name="orders")).to_be_focused()
    assert await _has_outline(visit.page)

    card = visit.text("#route-orders")
    await card.locator("summary").focus()
    await keyboard.press("Enter")
    await expect(card).not_to_have_attribute("open", "")
    await visit.page.get_by_role("link", name="orders").focus()
    await keyboard.press("Enter")
    await expect(card).to_have_attribute("open", "")

    await card.locator(".traffic svg").focus()
    await keyboard.press("ArrowLeft")
    await expect(card.locator(".traffic .reading")).to_contain_text("20/s, 0 failed")
    assert await _has_outline(visit.page)
    await keyboard.press("Escape")
    await expect(card.locator(".traffic .reading")).to_have_text("")


async def _has_outline(page: Page) -> bool:
    style = await page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    return bool(style == "solid")


async def test_an_update_leaves_focus_and_closed_cards_alone(visit: Visit) -> None:
    await visit.open()
    summary = visit.text("#route-orders > summary")
    await summary.click()
    await summary.focus()
    visit.proxy.serve(100)
    visit.proxy.pass_time()
    await visit.poll()

    await expect(visit.page.get_by_role("row", name="orders")).to_contain_text("20/s")
    await expect(summary).to_be_focused()
    await expect(visit.text("#route-orders")).not_to_have_attribute("open", "")


async def test_a_reload_brings_other_routes(visit: Visit) -> None:
    await visit.open()
    visit.proxy.config = replace(
        CONFIG, routes=(replace(CONFIG.routes[1], name="search"), CONFIG.routes[0])
    )
    await visit.poll()

    await expect(visit.text("#cards h3")).to_have_text(["search", "orders"])
    await expect(visit.text("#rows th")).to_have_text(["search", "orders"])


async def test_failing_routes_come_first_and_what_has_the_focus_keeps_it(visit: Visit) -> None:
    names = visit.text("#rows tr th a")
    await visit.open()
    await expect(names).to_have_text(["orders", "local"])
    await names.nth(1).focus()

    visit.proxy.stats.route("local").requests["h1", 502] += 1
    await visit.poll()

    await expect(names).to_have_text(["local", "orders"])
    await expect(visit.text("#cards summary h3")).to_have_text(["local", "orders"])
    assert await visit.page.evaluate("document.activeElement.textContent") == "local"


async def test_each_destination_is_shown_with_its_state(visit: Visit) -> None:
    destinations = visit.proxy.orders.destinations
    for name in ("orders-1.run.app", "orders-2.run.app"):
        destinations[name] = DestinationStats(name)
        destinations[name].processes = 1
    destinations["orders-2.run.app"].available = lambda: 1
    await visit.open()

    listed = visit.text("#route-orders .destinations li")
    await expect(listed.locator(".pill")).to_have_text(["Set aside", "Available"])
    await expect(listed.first).to_contain_text("orders-1.run.app")
    await expect(visit.text("#route-orders > summary .pill")).to_have_text("Attention")
    await expect(visit.text("#route-local .destinations")).to_be_hidden()


async def test_what_became_of_the_last_reload_is_said(visit: Visit) -> None:
    await visit.open()
    await expect(visit.text("#facts")).not_to_contain_text("reloaded")
    visit.proxy.pass_time(60)
    visit.proxy.lifecycle.reloaded("")
    visit.proxy.pass_time(120)
    await visit.poll()
    await expect(visit.text("#facts")).to_contain_text("reloaded 2 min")
    visit.proxy.lifecycle.reloaded("proxy.yaml:3:1: no such key")
    await visit.poll()
    await expect(visit.text("#notice")).to_contain_text("The last reload changed nothing: proxy.y")


async def test_many_routes_start_closed(visit: Visit) -> None:
    routes = tuple(replace(CONFIG.routes[0], name=f"route-{number}") for number in range(5))
    visit.proxy.config = replace(CONFIG, routes=routes)
    await visit.open()

    assert await visit.page.locator("details").count() == 5
    assert await visit.page.locator("details[open]").count() == 0


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
async def test_nothing_sticks_out_at_any_width(visit: Visit, width: int) -> None:
    _fill(visit.proxy)
    await visit.page.set_viewport_size({"width": width, "height": 800})
    await visit.open()

    assert await visit.page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
async def test_axe_finds_nothing_to_improve(visit: Visit, scheme: Any, width: int) -> None:
    _fill(visit.proxy)
    await visit.page.emulate_media(color_scheme=scheme)
    await visit.page.set_viewport_size({"width": width, "height": 800})
    await visit.open()

    await visit.page.clock.resume()  # axe has timers of its own
    found = await Axe().run(visit.page)

    violations = found.response["violations"]
    assert [(one["id"], one["help"], len(one["nodes"])) for one in violations] == [], json.dumps(
        [node["html"] for one in violations for node in one["nodes"]], indent=1
    )


def _fill(proxy: Proxy) -> None:
    """Let everything that the page can show be there."""
    proxy.stats.route("").requests["h1", 404] = 3
    for _ in range(20):
        proxy.serve(40)
        proxy.serve(3, 403)
        proxy.pass_time()
    long = "https://a-service-with-a-very-long-name-" + "x" * 40 + ".europe-west1.run.app"
    proxy.fail(detail=f"{long} closed the connection.", hint=f"Run `curl {long}`.")
    proxy.tokens["orders"] = replace(
        TOKEN, account="a" * 60 + "@x.iam.gserviceaccount.com", error="denied", hint="Grant it."
    )
