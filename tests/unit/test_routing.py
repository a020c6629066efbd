from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.model import Address, Route
from proxy.routing import RoutingTable, add_route

A = Address("127.0.0.1", 8080)
B = Address("127.0.0.1", 8081)


def route(name: str, path: str = "/", *hosts: str, own: bool = False, listen: Address = A) -> Route:
    return Route(name=name, listen=(listen,), own_listener=own, host=hosts, path=path)


def table_of(routes: Iterable[Route]) -> RoutingTable[Route]:
    table = RoutingTable[Route]()
    for each in routes:
        table.add(each, each)
    return table


def named(table: RoutingTable[Route], host: str, path: str) -> str | None:
    """Return the name of the route that the table chooses."""
    found = table.match(host.encode(), path.encode())
    return None if found is None else found.name


# Paths


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/orders", "orders"),
        ("/orders/", "orders"),
        ("/orders/1", "orders"),
        ("/orders//1", "orders"),
        ("/orders/eu", "eu"),
        ("/orders/eu/1", "eu"),
        ("/orders/europe", "orders"),
        ("/ordersx", None),
        ("/order", None),
        ("/Orders", None),
        ("/%6frders", None),
        ("//orders", None),
        ("/x/orders", None),
        ("/", None),
        ("", None),
        ("*", None),
        ("orders", None),
    ],
)
def test_the_longest_prefix_on_a_segment_boundary_wins(path: str, name: str | None) -> None:
    table = table_of([route("orders", "/orders"), route("eu", "/orders/eu")])
    assert named(table, "any", path) == name


def test_the_raw_path_is_compared_byte_for_byte() -> None:
    table = table_of([route("cafe", "/caf%C3%A9"), route("all")])
    assert named(table, "any", "/caf%C3%A9/x") == "cafe"
    assert named(table, "any", "/caf%c3%a9/x") == "all"


@pytest.mark.parametrize("path", ["/", "/x", "*", "", "/x/y?z"])
def test_the_root_matches_everything(path: str) -> None:
    for routes in ([route("all")], [route("all"), route("other", "/other")]):
        assert named(table_of(routes), "any", path) == "all"


# Hosts


HOSTS = table_of(
    [
        route("exact", "/", "billing.internal"),
        route("wild", "/", "*.internal"),
        route("wilder", "/", "*.billing.internal"),
        route("six", "/", "[::1]"),
        route("four", "/", "127.0.0.1"),
        route("rest"),
    ]
)


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("billing.internal", "exact"),
        ("billing.internal:8080", "exact"),
        ("BILLING.Internal:80", "exact"),
        ("billing.internal.", "exact"),
        ("billing.internal.:8080", "exact"),
        ("billing.internal:", "exact"),
        ("orders.internal", "wild"),
        ("a.orders.internal:1", "wild"),
        ("eu.billing.internal", "wilder"),
        ("a.eu.Billing.internal.", "wilder"),
        ("internal", "rest"),
        ("xinternal", "rest"),
        (".internal", "rest"),
        ("xbilling.internal", "wild"),
        ("[::1]", "six"),
        ("[::1]:8080", "six"),
        ("[::2]:8080", "rest"),
        ("127.0.0.1:8080", "four"),
        ("127.0.0.1", "four"),
        ("", "rest"),
        (":8080", "rest"),
        ("other.example.com", "rest"),
    ],
)
def test_an_exact_host_comes_before_the_longest_wildcard_and_that_before_any(
    host: str, name: str
) -> None:
    assert named(HOSTS, host, "/x") == name


def test_without_a_route_for_any_host_others_find_nothing() -> None:
    table = table_of([route("a", "/", "a.internal")])
    assert named(table, "a.internal", "/") == "a"
    assert named(table, "b.internal", "/") is None


def test_a_wildcard_fits_the_longest_host_and_no_longer_one() -> None:
    table = table_of([route("wild", "/", "*.internal")])
    longest = "a." * 122 + "internal"
    assert len(longest) == 252
    assert named(table, longest + ".", "/") == "wild"
    assert named(table, "b" + longest, "/") == "wild"
    assert named(table, "bb" + longest, "/") is None


def test_a_host_that_is_only_dots_or_bytes_finds_the_rest() -> None:
    assert HOSTS.match(b"." * 200, b"/") is HOSTS.match(b"other", b"/")
    assert HOSTS.match(b"\xff\x00.internal", b"/") is not None


# Precedence


def test_where_no_path_fits_the_next_host_takes_its_turn() -> None:
    table = table_of(
        [
            route("exact", "/a", "x.eu.internal"),
            route("longer", "/b", "*.eu.internal"),
            route("shorter", "/c", "*.internal"),
            route("any", "/d"),
        ]
    )

    found = [named(table, "x.eu.internal", path) for path in ("/a", "/b", "/c", "/d", "/e")]

    assert found == ["exact", "longer", "shorter", "any", None]


def test_the_host_weighs_more_than_the_path() -> None:
    table = table_of(
        [route("long", "/a/b/c"), route("host", "/", "x.internal"), route("wild", "/a", "*.y")]
    )

    assert named(table, "x.internal", "/a/b/c") == "host"
    assert named(table, "z.y", "/a/b/c") == "wild"
    assert named(table, "other", "/a/b/c") == "long"


def test_an_own_listener_weighs_more_than_everything() -> None:
    table = table_of(
        [
            route("shared", "/a/b", "x.internal"),
            route("own", "/a", own=True),
            route("rest"),
        ]
    )

    assert named(table, "x.internal", "/a/b") == "own"
    assert named(table, "x.internal", "/b") == "rest"


def test_the_order_of_the_routes_never_matters() -> None:
    routes = [
        route("own", "/o", own=True),
        route("exact", "/", "a.internal"),
        route("wild", "/", "*.internal"),
        route("path", "/p"),
        route("all"),
    ]
    requests = [("a.internal", "/o"), ("a.internal", "/p"), ("b.internal", "/p"), ("c", "/p/q")]

    forwards = [named(table_of(routes), *request) for request in requests]
    backwards = [named(table_of(routes[::-1]), *request) for request in requests]

    assert forwards == backwards == ["own", "exact", "wild", "path"]


def test_an_empty_table_matches_nothing() -> None:
    assert table_of([]).match(b"a", b"/") is None


# Values


def test_a_table_holds_the_value_of_each_route() -> None:
    table = RoutingTable[str]()
    table.add(route("a", "/a"), "A")
    table.add(route("b", "/b"), "B")

    assert table.match(b"", b"/b") == "B"


def test_a_route_is_added_to_the_tables_of_all_its_listeners() -> None:
    tables = {A: RoutingTable[str](), B: RoutingTable[str]()}
    both = Route(name="both", listen=(A, B, A), host=("both.internal",))
    for each in (both, route("a"), route("b", listen=B)):
        add_route(tables, each, each.name)

    assert [tables[at].match(b"both.internal", b"/") for at in (A, B)] == ["both", "both"]
    assert [tables[at].match(b"other", b"/") for at in (A, B)] == ["a", "b"]


# An independent reading of the rules


def slow(routes: list[Route], host: str, path: str) -> str | None:
    """Choose by sorting all routes that match."""
    host = host.lower().rsplit(":", 1)[0].removesuffix(".")
    ranked = []
    for each in routes:
        if each.path not in ("/", path) and not path.startswith(each.path + "/"):
            continue
        for rule in each.host or ("",):
            suffix = rule.removeprefix("*")
            wild = rule.startswith("*") and host.endswith(suffix) and len(host) > len(suffix)
            if not rule or rule == host or (wild and not host.startswith(".")):
                kind = 0 if not rule else 1 if rule.startswith("*") else 2
                ranked.append((each.own_listener, kind, len(rule), len(each.path), each.name))
    return max(ranked)[-1] if ranked else None


LABELS = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3).map(".".join)
PATHS = st.lists(st.sampled_from(["x", "y", "xy"]), max_size=3).map(lambda p: "/" + "/".join(p))
RULES = st.one_of(st.just(""), LABELS, LABELS.map(lambda name: f"*.{name}"))


@given(
    rows=st.lists(st.tuples(st.booleans(), RULES, PATHS), unique=True, max_size=8),
    host=LABELS,
    path=PATHS,
)
def test_the_table_chooses_as_a_plain_reading_of_the_rules(
    rows: list[tuple[bool, str, str]], host: str, path: str
) -> None:
    routes = [
        route(str(number), prefix, *([rule] if rule else []), own=own)
        for number, (own, rule, prefix) in enumerate(rows)
    ]

    assert named(table_of(routes), f"{host}:80", path) == slow(routes, host, path)


# Cost


def seconds(call: Callable[[], object], times: int) -> float:
    """Return the least time of one call in a few rounds."""
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(times):
            call()
        best = min(best, time.perf_counter() - start)
    return best / times


def many(count: int) -> RoutingTable[Route]:
    hosts = [route(f"h{n}", "/", f"h{n}.internal") for n in range(count)]
    wild = [route(f"w{n}", "/", f"*.w{n}.internal") for n in range(count)]
    paths = [route(f"p{n}", f"/p{n:04}/x") for n in range(count)]
    return table_of([*hosts, *wild, *paths])


@pytest.mark.parametrize(
    ("host", "path"), [("h0.internal:80", "/"), ("a.w0.internal", "/"), ("other", "/p0000/x/y/z")]
)
def test_a_thousand_routes_cost_what_one_does(host: str, path: str) -> None:
    few, lots = many(1), many(1000)
    arguments = host.encode(), path.encode()
    assert few.match(*arguments) == lots.match(*arguments) is not None

    one = seconds(lambda: few.match(*arguments), 2000)
    thousand = seconds(lambda: lots.match(*arguments), 2000)

    # The same within what a busy machine adds; a search through all would take 100 times longer.
    assert thousand < one * 5


def test_a_long_path_of_slashes_costs_what_its_first_bytes_do() -> None:
    table = many(10)
    short, long = b"/" * 64, b"/" * 65536

    assert seconds(lambda: table.match(b"", long), 200) < 20 * seconds(
        lambda: table.match(b"", short), 200
    )


def test_a_long_host_of_dots_is_bounded() -> None:
    table = many(10)
    assert seconds(lambda: table.match(b"a." * 32768, b"/"), 20) < 0.005
