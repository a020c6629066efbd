"""The environment's proxies, read as curl reads them: the same rows through curl itself."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from proxy.config import addresses, egress

CURL = shutil.which("curl")

pytestmark = pytest.mark.skipif(CURL is None, reason="curl is not installed")

HOSTS = (
    "example.com",
    "www.example.com",
    "nonexample.com",
    "example.com.org",
    "com",
    "10.1.2.3",
    "10.200.0.1",
    "192.0.2.7",
    "[2001:db8::1]",
    "[2001:db8:0:1::2]",
)

NO_PROXY = (
    "*",
    "*,example.com",
    " *",
    "example.com",
    ".example.com",
    "..example.com",
    "EXAMPLE.com",
    "example.com.",
    "*.example.com",
    "www.*",
    "example.com:443",
    "example.com,10.1.2.3",
    "example.org, example.com",
    "example.org\texample.com",
    "a,,example.com",
    ",example.com",
    " example.com ",
    "xample.com",
    ".",
    ",",
    "com",
    "10.1.2.3",
    "10.1.2",
    "10.0.0.0/8",
    "10.200.0.0/16,192.0.2.0/24",
    "10.0.0.0/33",
    "10.1.2.3/0",
    "0.0.0.0/0",
    "10.1.2.3/32",
    "10.9.9.9/9",
    "10.1.2.3:443",
    ".10.1.2.3",
    "2001:db8::1",
    "[2001:db8::1]",
    "2001:db8::/129",
    "::/0",
)


# Networks of IPv6 as curl's manual has them. curl 7.88 takes such an address for a name, and finds
# only the very same text.
NETWORKS = (
    ("2001:DB8:0:0::1", [True, False]),
    ("2001:db8::/32", [True, True]),
    ("2001:db8::/63", [True, True]),
    ("2001:db8::/64", [True, False]),
)


@pytest.mark.parametrize(("exempt", "expected"), NETWORKS)
def test_networks_of_ipv6_are_exempt_too(exempt: str, expected: list[bool]) -> None:
    env = {"https_proxy": "http://127.0.0.1:9", "NO_PROXY": exempt}

    found = [not said_by_us(env, f"https://{host}/") for host in HOSTS[-2:]]
    assert found == expected


@asynccontextmanager
async def refusing(status: int) -> AsyncIterator[int]:
    """Serve a proxy that answers everything with `status`; yield its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % status)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def ask_curl(env: Mapping[str, str], *urls: str) -> list[int]:
    """Return for each URL with which status a proxy refused curl; 0 where it asked none."""
    # Whatever is not refused by a proxy goes to the discard port of loopback, where nobody is.
    arguments = ["-sS", "-m", "10", "-w", "%{http_connect} %{http_code}\\n", "--connect-to"]
    process = await asyncio.create_subprocess_exec(
        str(CURL), *arguments, "::127.0.0.1:9", *urls,
        env={"PATH": os.environ["PATH"], **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    out, _ = await process.communicate()
    answers = [max(map(int, line.split())) for line in out.decode().splitlines()]
    assert len(answers) == len(urls), out
    return answers


def said_by_us(env: Mapping[str, str], url: str) -> int:
    """Return the port of the proxy that is asked for `url`, 0 for none."""
    upstream = addresses.upstream(url)
    proxy = egress.proxy_for(egress.of_environment(env), upstream.scheme, upstream.host)
    return 0 if proxy is None else proxy.port


@pytest.mark.parametrize("exempt", NO_PROXY)
async def test_curl_exempts_the_same_hosts(exempt: str) -> None:
    urls = [f"https://{host}/" for host in HOSTS]
    async with refusing(403) as port:
        env = {"https_proxy": f"http://127.0.0.1:{port}", "NO_PROXY": exempt}

        by_curl = [bool(status) for status in await ask_curl(env, *urls)]

    assert [bool(said_by_us(env, url)) for url in urls] == by_curl


NAMES = (
    "https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY",
)  # fmt: skip


@pytest.mark.parametrize(
    "names",
    [
        NAMES,
        ("HTTPS_PROXY", "ALL_PROXY"),
        ("HTTP_PROXY",),
        ("http_proxy", "HTTP_PROXY"),
        ("all_proxy", "ALL_PROXY"),
        ("ALL_PROXY",),
        ("HTTPS_PROXY",),
        (),
    ],
    ids="+".join,
)
async def test_curl_takes_the_same_variable(names: tuple[str, ...]) -> None:
    urls = ["https://a.example/", "http://a.example/"]
    async with AsyncExitStack() as stack:
        ports = [await stack.enter_async_context(refusing(410 + n)) for n in range(len(names))]
        env = {name: f"http://127.0.0.1:{port}" for name, port in zip(names, ports, strict=True)}
        statuses = await ask_curl(env, *urls)

    by_curl = [ports[status - 410] if status else 0 for status in statuses]
    assert [said_by_us(env, url) for url in urls] == by_curl


@pytest.mark.parametrize("empty", ["https_proxy", "no_proxy"])
async def test_an_empty_variable_is_none_for_curl_either(empty: str) -> None:
    async with refusing(403) as port:
        other = {"https_proxy": "HTTPS_PROXY", "no_proxy": "NO_PROXY"}[empty]
        env = {"HTTPS_PROXY": f"http://127.0.0.1:{port}", "NO_PROXY": "*"} | {empty: ""}
        if other == "HTTPS_PROXY":
            del env["NO_PROXY"]
        (status,) = await ask_curl(env, "https://a.example/")

    assert bool(said_by_us(env, "https://a.example/")) == bool(status)


@pytest.mark.parametrize("url", ["127.0.0.1:{port}", "HTTP://127.0.0.1:{port}/"])
async def test_curl_finds_the_same_proxy_behind_other_spellings(url: str) -> None:
    async with refusing(403) as port:
        env = {"HTTPS_PROXY": url.format(port=port)}
        (status,) = await ask_curl(env, "https://a.example/")

    assert (status, said_by_us(env, "https://a.example/")) == (403, port)
