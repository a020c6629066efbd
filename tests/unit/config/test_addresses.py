from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import addresses
from proxy.config.model import Address, Service, Upstream
from tests.unit.config.reading import refusal


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:8080", Address("127.0.0.1", 8080)),
        ("8080", Address("localhost", 8080)),
        (":8080", Address("localhost", 8080)),
        ("0", Address("localhost", 0)),
        ("0.0.0.0:65535", Address("0.0.0.0", 65535)),  # noqa: S104 (only read)
        ("[::1]:8080", Address("::1", 8080)),
        ("[0:0:0:0:0:0:0:1]:8080", Address("::1", 8080)),
        ("localhost:8080", Address("localhost", 8080)),
        ("Proxy.Internal:8080", Address("proxy.internal", 8080)),
        ("unix:/run/auth-proxy.sock", Address(path="/run/auth-proxy.sock")),
        ("unix:/" + "x" * 106, Address(path="/" + "x" * 106)),
    ],
)
def test_an_address_is_a_port_a_host_with_port_or_a_socket(text: str, expected: Address) -> None:
    assert addresses.address(text) == expected


@pytest.mark.parametrize("text", ["127.0.0.1:8080", "[::1]:0", "unix:/run/x", "localhost:1"])
def test_an_address_is_written_as_it_is_read(text: str) -> None:
    assert str(addresses.address(text)) == text


NOT_AN_ADDRESS = "write localhost:8081, 8081, [::1]:8081 or unix:/run/proxy.sock"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", f"'' is not an address; {NOT_AN_ADDRESS}"),
        ("127.0.0.1", f"'127.0.0.1' is not an address; {NOT_AN_ADDRESS}"),
        ("localhost", f"'localhost' is not an address; {NOT_AN_ADDRESS}"),
        ("[::1]", f"'[::1]' is not an address; {NOT_AN_ADDRESS}"),
        ("127.0.0.1:", f"'127.0.0.1:' is not an address; {NOT_AN_ADDRESS}"),
        ("127.0.0.1:http", f"'127.0.0.1:http' is not an address; {NOT_AN_ADDRESS}"),
        ("http://127.0.0.1:80", f"'http://127.0.0.1:80' is not an address; {NOT_AN_ADDRESS}"),
        ("٨٠٨٠", f"'٨٠٨٠' is not an address; {NOT_AN_ADDRESS}"),
        ("65536", "'65536' is not a port; write 0 to 65535"),
        ("127.0.0.1:99999", "'99999' is not a port; write 0 to 65535"),
        ("::1:8080", "'::1:8080': write an IPv6 address in brackets, such as [::1]:8081"),
        ("*:8080", "'*:8080': write 0.0.0.0 or [::] for every address of the machine"),
        ("[::g]:8080", "'[::g]' is not an IPv6 address; write one such as [::1]"),
        ("[fe80::1%eth0]:80", "'[fe80::1%eth0]' is not an IPv6 address; write one such as [::1]"),
        (
            "127.1:8080",
            "'127.1' is not an IPv4 address; write four numbers such as 127.0.0.1",
        ),
        ("unix:run/x.sock", "'unix:run/x.sock' needs an absolute path: unix:/run/proxy.sock"),
        ("unix:", "'unix:' needs an absolute path: unix:/run/proxy.sock"),
        ("unix:@name", "'unix:@name' needs an absolute path: unix:/run/proxy.sock"),
        ("unix:/" + "x" * 107, "the socket's path is longer than 107 bytes; shorten it"),
        ("unix:/" + "é" * 54, "the socket's path is longer than 107 bytes; shorten it"),
    ],
)
def test_what_is_no_address_is_refused(text: str, message: str) -> None:
    assert refusal(addresses.address, text) == message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://a.run.app", Upstream("https", "a.run.app", 443)),
        ("https://a.run.app/", Upstream("https", "a.run.app", 443)),
        ("HTTPS://A.Run.App", Upstream("https", "a.run.app", 443)),
        ("https://a.run.app:443", Upstream("https", "a.run.app", 443)),
        ("https://a.run.app.", Upstream("https", "a.run.app", 443)),
        ("https://a.run.app:8443/v1/", Upstream("https", "a.run.app", 8443, "/v1")),
        ("https://a.run.app/Base/%20x", Upstream("https", "a.run.app", 443, "/Base/%20x")),
        ("http://127.0.0.1:3001", Upstream("http", "127.0.0.1", 3001)),
        ("http://localhost", Upstream("http", "localhost", 80)),
        ("http://[::1]:3001", Upstream("http", "::1", 3001)),
        ("http://my_app:1", Upstream("http", "my_app", 1)),
        ("http://app:65535", Upstream("http", "app", 65535)),
        ("https://bücher.example", Upstream("https", "xn--bcher-kva.example", 443)),
        ("https://a.example/users/@me", Upstream("https", "a.example", 443, "/users/@me")),
    ],
)
def test_an_upstream_is_a_url_with_a_host(text: str, expected: Upstream) -> None:
    assert addresses.upstream(text) == expected


NOT_A_URL = "is not a URL; write https://HOST or http://HOST:PORT"
NOT_A_HOST = "is not a host name; write letters, digits, '-' and '.', such as billing.internal"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", f"'' {NOT_A_URL}"),
        ("orders.example.com", f"'orders.example.com' {NOT_A_URL}"),
        ("orders?key=secret", f"'orders' {NOT_A_URL}"),
        ("me:secret@orders", f"this {NOT_A_URL}"),
        ("ftp://a.example", "'ftp' cannot be called; write https:// or http://"),
        ("unix:///run/x", "'unix' cannot be called; write https:// or http://"),
        ("https://", "'https://' has no host; write https://HOST or http://HOST:PORT"),
        ("https:///x", "'https:///x' has no host; write https://HOST or http://HOST:PORT"),
        ("https://:443", "'https://:443' has no host; write https://HOST or http://HOST:PORT"),
        ("http://::1", "'http://::1' has no host; write https://HOST or http://HOST:PORT"),
        (
            "https://me:secret@a.example",
            "an upstream has no user or password; use set_headers for credentials",
        ),
        (
            "https://a.example/?key=secret",
            "an upstream has no query and no fragment; remove what follows ? or #",
        ),
        (
            "https://a.example#x",
            "an upstream has no query and no fragment; remove what follows ? or #",
        ),
        ("https://a.example:0", "'0' is not a port; write 1 to 65535"),
        ("https://a.example:65536", "'65536' is not a port; write 1 to 65535"),
        ("https://a.example:", "'' is not a port; write 1 to 65535"),
        ("https://a.example:x", "'x' is not a port; write 1 to 65535"),
        ("https://a b.example", f"'a b.example' {NOT_A_HOST}"),
        ("https://a..example", f"'a..example' {NOT_A_HOST}"),
        ("https://-a.example", f"'-a.example' {NOT_A_HOST}"),
        ("https://a.example\n", f"'a.example\\n' {NOT_A_HOST}"),
        ("https://[::1", "'[' is not an IPv6 address; write one such as [::1]"),
        ("https://[x]", "'[x]' is not an IPv6 address; write one such as [::1]"),
        (
            "http://256.0.0.1",
            "'256.0.0.1' is not an IPv4 address; write four numbers such as 127.0.0.1",
        ),
        (
            "http://0x7f000001",
            "'0x7f000001' is not an IPv4 address; write four numbers such as 127.0.0.1",
        ),
        (
            "https://straße.example",
            "'straße.example' has two international forms; write the xn-- form",
        ),
        (
            "https://a.example/b c",
            "'/b c' is not a path as it travels; percent-encode spaces and other letters",
        ),
        ("https://a.example/../x", "'/../x' has an empty, '.' or '..' segment; write it without"),
    ],
)
def test_what_is_no_upstream_is_refused_without_showing_secrets(text: str, message: str) -> None:
    assert refusal(addresses.upstream, text) == message


@pytest.mark.parametrize(
    ("upstream", "authority"),
    [
        (Upstream("https", "a.example", 443), "a.example"),
        (Upstream("https", "a.example", 80), "a.example:80"),
        (Upstream("http", "::1", 80), "[::1]"),
        (Upstream("http", "::1", 81), "[::1]:81"),
    ],
)
def test_the_authority_names_the_port_where_it_is_not_the_schemes_own(
    upstream: Upstream, authority: str
) -> None:
    assert upstream.authority == authority


@given(st.text())
def test_any_text_is_an_upstream_or_refused_in_words(text: str) -> None:
    try:
        found = addresses.upstream(f"https://{text}")
    except ValueError as error:
        assert str(error)  # noqa: PT017 (whether it raises depends on the text)
    else:
        assert addresses.upstream(str(found)) == found


@pytest.mark.parametrize("length", [1, 63])
def test_a_label_has_at_most_63_characters(length: int) -> None:
    assert addresses.host_name("a" * length + ".example")


def test_a_longer_label_or_name_is_refused() -> None:
    longest = ".".join(["a" * 63] * 3 + ["b" * 61])
    assert addresses.host_name(longest) == longest
    assert refusal(addresses.host_name, longest + "b").endswith(NOT_A_HOST)
    assert refusal(addresses.host_name, "a" * 64 + ".example").endswith(NOT_A_HOST)


def test_a_name_without_international_form_is_refused() -> None:
    text = "é" * 64
    assert refusal(addresses.host_name, text).endswith("is not a host name; write its xn-- form")


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("billing.internal", "billing.internal"),
        ("Billing.INTERNAL.", "billing.internal"),
        ("*.Billing.internal", "*.billing.internal"),
        ("*.internal", "*.internal"),
        ("127.0.0.1", "127.0.0.1"),
        ("[0::1]", "[::1]"),
        ("my_app", "my_app"),
        ("*.bücher.example", "*.xn--bcher-kva.example"),
    ],
)
def test_a_host_rule_is_a_name_or_a_wildcard(text: str, rule: str) -> None:
    assert addresses.host(text) == rule


PORT_IS_IGNORED = (
    "the port of a request is ignored; write the host alone, and use listen for a port of its own"
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("*", "any host is the default; leave host out"),
        ("a.internal:80", f"'a.internal:80': {PORT_IS_IGNORED}"),
        ("[::1]:80", f"'[::1]:80': {PORT_IS_IGNORED}"),
        ("*.a:80", f"'*.a:80': {PORT_IS_IGNORED}"),
        ("http://a", "'http://a' is not a host; write one such as billing.internal or [::1]"),
        ("a/b", "'a/b' is not a host; write one such as billing.internal or [::1]"),
        (
            "::1",
            "'::1' is not a host; write one such as billing.internal or [::1]",
        ),
        ("::g", "'::g' is not a host; write one such as billing.internal or [::1]"),
        ("a.*.b", "'a.*.b': a * can only stand first, as in *.billing.internal"),
        ("*a.b", "'*a.b': a * can only stand first, as in *.billing.internal"),
        ("*.*.b", "'*.*.b': a * can only stand first, as in *.billing.internal"),
        ("*.", f"'' {NOT_A_HOST}"),
        ("", f"'' {NOT_A_HOST}"),
        ("*.127.0.0.1", "'*.127.0.0.1': an IP address has no subdomains; write it in full"),
    ],
)
def test_what_is_no_host_rule_is_refused(text: str, message: str) -> None:
    assert refusal(addresses.host, text) == message


@pytest.mark.parametrize(
    ("text", "prefix"),
    [
        ("/", "/"),
        ("/orders", "/orders"),
        ("/orders/", "/orders"),
        ("/a/b.c/~d", "/a/b.c/~d"),
        ("/caf%C3%A9", "/caf%C3%A9"),
        ("/pkg.Service", "/pkg.Service"),
        ("/" + "a" * 1023, "/" + "a" * 1023),
    ],
)
def test_a_path_is_a_prefix_without_its_final_slash(text: str, prefix: str) -> None:
    assert addresses.path(text) == prefix


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is not a path; it begins with /, such as /orders"),
        ("orders", "'orders' is not a path; it begins with /, such as /orders"),
        ("*", "'*' is not a path; it begins with /, such as /orders"),
        ("/a?b", "a path has no query and no fragment; remove what follows ? or #"),
        ("/a#b", "a path has no query and no fragment; remove what follows ? or #"),
        ("/a b", "'/a b' is not a path as it travels; percent-encode spaces and other letters"),
        ("/é", "'/é' is not a path as it travels; percent-encode spaces and other letters"),
        ("/a%2", "'/a%2' is not a path as it travels; percent-encode spaces and other letters"),
        ("/a\n", "'/a\\n' is not a path as it travels; percent-encode spaces and other letters"),
        ("/orders/*", "'/orders/*': a path matches all below it; write /orders"),
        ("/*", "'/*': a path matches all below it; write /"),
        ("//a", "'//a' has an empty, '.' or '..' segment; write it without"),
        ("//", "'//' has an empty, '.' or '..' segment; write it without"),
        ("/a//", "'/a//' has an empty, '.' or '..' segment; write it without"),
        ("/a/../b", "'/a/../b' has an empty, '.' or '..' segment; write it without"),
        ("/.", "'/.' has an empty, '.' or '..' segment; write it without"),
        ("/" + "a" * 1024, f"'/{'a' * 58}…' is longer than 1024 characters; shorten it"),
    ],
)
def test_what_is_no_path_is_refused(text: str, message: str) -> None:
    assert refusal(addresses.path, text) == message


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("null", "null"),
        ("https://app.example.com", "https://app.example.com"),
        ("HTTPS://App.example.com:443", "https://app.example.com"),
        ("http://localhost:5173", "http://localhost:5173"),
        ("http://[::1]:80", "http://[::1]"),
        ("https://a.example:80", "https://a.example:80"),
        ("chrome-extension://abcdefghijklmnop", "chrome-extension://abcdefghijklmnop"),
    ],
)
def test_an_origin_is_kept_as_browsers_send_it(text: str, sent: str) -> None:
    assert addresses.origin(text) == sent


@pytest.mark.parametrize(
    "text", ["", "~", "app.example.com", "https://a.example/", "https://a.example?x", "https://a@b"]
)
def test_what_is_no_origin_is_refused(text: str) -> None:
    assert refusal(addresses.origin, text) == (
        f"'{text}' is not an origin; write https://HOST or http://HOST:PORT, "
        "without a path or final /"
    )


def test_every_origin_cannot_be_allowed() -> None:
    message = "* would let every web page call; name each origin"
    assert refusal(addresses.origin, "*") == message


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "127.255.0.1", "::1", "::ffff:127.0.0.1"]
)
def test_this_machine_is_loopback(host: str) -> None:
    assert addresses.is_loopback(host)


@pytest.mark.parametrize(
    "host",
    [
        "0.0.0.0",  # noqa: S104 (only read)
        "::",
        "10.0.0.1",
        "::ffff:10.0.0.1",
        "fe80::1%eth0",
        "localhost.example.com",
        "app",
        "a.localhost",
    ],
)
def test_every_other_host_is_not(host: str) -> None:
    assert not addresses.is_loopback(host)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("billing", Service("billing")),
        ("b", Service("b")),
        ("billing.us-central1", Service("billing", "us-central1")),
        ("billing.europe-west12", Service("billing", "europe-west12")),
        ("b-2.us-east1.123456789012", Service("b-2", "us-east1", "123456789012")),
        ("a" * 63, Service("a" * 63)),
        ("a" * 50 + ".us-east1.123456789012", Service("a" * 50, "us-east1", "123456789012")),
    ],
)
def test_a_service_has_a_name_and_perhaps_a_region_and_a_project_number(
    text: str, parts: Service
) -> None:
    assert addresses.service(text) == parts
    assert str(parts) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Billing",
        "1billing",
        "billing-",
        "billing.",
        "billing..123",
        "billing.us-central1.my-project",
        "billing.us-central1.123.x",
        "billing.example.com",
        "bil_ling",
    ],
)
def test_what_is_no_service_is_refused(text: str) -> None:
    assert refusal(addresses.service, text) == (
        f"'{text}' is not NAME[.REGION[.PROJECT_NUMBER]]; write a Cloud Run service "
        "such as billing, billing.us-central1 or billing.us-central1.123456789012"
    )


@pytest.mark.parametrize(
    ("text", "label"),
    [("a" * 64, "a" * 59), ("a" * 51 + ".us-east1.123456789012", "a" * 51 + "-1234567")],
)
def test_a_service_whose_url_cannot_exist_is_refused(text: str, label: str) -> None:
    assert refusal(addresses.service, text) == (
        f"'{label}…' is longer than 63 characters, so Cloud Run gives it no such URL; "
        "write the service's own URL as upstream"
    )


def test_a_service_whose_parts_are_known_has_a_url() -> None:
    whole = Service("billing", "us-central1", "123456789012")
    host = "billing-123456789012.us-central1.run.app"
    assert addresses.service_upstream(whole) == Upstream("https", host, 443)


def test_the_name_and_the_number_of_a_service_are_one_label_of_its_url() -> None:
    for letters in (59, 60):
        service = Service("a" * letters, "us-east1", "42")
        assert addresses.service_upstream(service).host.startswith("a" * letters + "-42.")
    with pytest.raises(ValueError, match="longer than 63 characters"):
        addresses.service_upstream(Service("a" * 61, "us-east1", "42"))


@pytest.mark.parametrize(
    ("host", "is_address"),
    [("127.0.0.1", True), ("::1", True), ("localhost", False), ("1.example", False)],
)
def test_addresses_are_told_from_names(host: str, *, is_address: bool) -> None:
    assert addresses.is_address(host) is is_address
