"""Numbers with something in them, for the tests of what is made from numbers."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from proxy.ops.lifecycle import Reload
from proxy.ops.numbers import Numbers, TokenMetrics, TokenView
from proxy.plane.stats import Connections, DestinationStats, Failure, Stats

RELOAD = Reload(succeeded_at=1_767_300_000.0)

RESET = Failure(
    at=1_767_323_045.5,
    route="orders",
    reason="upstream_reset",
    status=502,
    detail="https://orders.run.app closed the connection.",
    hint="Look at the upstream's own log.",
)


def busy_stats() -> Stats:
    """Return two routes with traffic, and an exchange that no route matched."""
    stats = Stats()
    orders = stats.route("orders")
    orders.requests.update({("h1", 200): 90, ("h2", 200): 5, ("h1", 502): 5})
    for seconds in (0.0005, 0.001, 0.02, 4000.0):
        orders.duration.observe(seconds)
    orders.upstream_head.observe(0.01)
    orders.errors["upstream_reset"] = 5
    orders.in_flight = 3
    orders.retries["reset"] = 2
    orders.dials.update({"ok": 4, "upstream_connect_failed": 1})
    orders.request_bytes, orders.response_bytes = 1000, 2000
    orders.connections = lambda: Connections(idle=1, busy=2, dialling=3, waiting=4)
    stats.route("billing")
    stats.route("").requests["h1", 404] = 7
    stats.failures.append(RESET)
    return stats


def several_destinations(pids: tuple[int, ...] = ()) -> Numbers:
    """Return the numbers of two processes with a route of two destinations."""
    stats = busy_stats()
    stock = stats.route("stock")
    stock.failovers["connect_failed"] = 4
    for name, available in ("a.run.app", 1), ("b.run.app:8443", 2):
        each = stock.destinations[name] = DestinationStats(name)
        each.processes = 2
        each.available = partial(int, available)
        each.dials["ok"] = available
        each.connections = lambda: Connections(idle=1, busy=2)
    first = TokenView(state="good", expires_at=1_767_326_000.0)
    second = TokenView(state="good", expires_at=1_767_327_000.0)
    tokens = {"a.run.app": first, "b.run.app:8443": second}
    numbers = busy_numbers(pids)
    numbers.fetches.on_fetch(("stock", "a.run.app"), "fetched", 0.02)
    return replace(
        numbers,
        stats=stats,
        tokens={**busy_numbers().tokens, "stock": first},
        destination_tokens={"stock": tokens},
    )


def busy_numbers(pids: tuple[int, ...] = ()) -> Numbers:
    """Return the numbers of a process that has served for a while."""
    fetches = TokenMetrics()
    fetches.on_fetch("orders", "fetched", 0.02)
    fetches.on_fetch("orders", "failed", 2.0)
    tokens = {
        "orders": TokenView(
            state="good", expires_at=1_767_326_645.0, account="app@x.iam.gserviceaccount.com"
        ),
        "billing": TokenView(
            state="backing_off", error="no answer", hint="Ask it.", failed_at=1_767_323_040.0
        ),
    }
    return Numbers(stats=busy_stats(), tokens=tokens, fetches=fetches, pids=pids)
