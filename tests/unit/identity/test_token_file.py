"""A file that somebody else keeps a token in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from proxy.clock import Clocks
from proxy.config.model import TokenFile
from proxy.errors import TokenUnavailable
from proxy.identity.cache import TokenCache
from proxy.identity.caches import TokenCaches
from proxy.identity.files import MOST_BYTES
from tests.fakes.steering import AUDIENCE, HOUR, jitter, jwt


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "token"


@pytest.fixture
def cache(path: Path) -> TokenCache:
    tokens = TokenCaches(clocks=Clocks(), jitter=jitter(), environ={})
    return tokens.cache(TokenFile(path), AUDIENCE)


def fresh(lifetime: float = HOUR, **claims: str) -> str:
    return jwt(int(Clocks().wall() + lifetime), **claims)


async def value(cache: TokenCache) -> str:
    """Return what a request carries."""
    token = cache.current("orders") or await cache.get("orders", 10)
    return token.value


async def test_the_token_in_the_file_is_used(path: Path, cache: TokenCache) -> None:
    token = fresh()
    path.write_text(f"{token}\n")

    assert await value(cache) == token
    assert cache.source.describe() == f"token file {path}"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
async def test_the_file_may_have_a_byte_order_mark(
    path: Path, cache: TokenCache, encoding: str
) -> None:
    """PowerShell writes UTF-16 by > and Out-File, and UTF-8 with a mark by Set-Content."""
    token = fresh()
    marked = "\ufeff" if encoding[-3:] in {"-le", "-be"} else ""
    path.write_text(f"{marked}{token}\r\n", encoding=encoding)

    assert await value(cache) == token


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"\xff\xfea", b"\xfe\xff\xd8\x00", b"\xef\xbb\xbf"]
)
async def test_a_mark_alone_is_no_token(path: Path, cache: TokenCache, content: bytes) -> None:
    path.write_bytes(content)

    with pytest.raises(TokenUnavailable, match="not an ID token but"):
        await cache.get("orders", 10)


async def test_the_next_request_after_a_change_carries_what_the_file_says(
    path: Path, cache: TokenCache
) -> None:
    for _ in range(5):
        token = fresh()
        path.write_text(token)

        assert await value(cache) == token


async def test_a_file_that_is_replaced_is_read_again_although_size_and_time_are_the_same(
    path: Path, cache: TokenCache
) -> None:
    first = fresh(jti="1")
    path.write_text(first)
    assert await value(cache) == first
    status = path.stat()

    second = fresh(jti="2")
    other = path.with_name("other")
    other.write_text(second)
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)
    assert path.stat().st_size == status.st_size
    assert await value(cache) == second


async def test_an_unchanged_file_is_read_once(path: Path, cache: TokenCache) -> None:
    path.write_text(fresh())
    for _ in range(5):
        await value(cache)

    assert cache.stats == {("orders", "fetched"): 1}


@pytest.mark.parametrize("content", ["", "half a tok", "\xff", "a.b.c"])
async def test_a_broken_file_leaves_the_good_token(
    path: Path, cache: TokenCache, content: str
) -> None:
    token = fresh()
    path.write_text(token)
    await value(cache)
    path.write_text(content)

    assert await value(cache) == token
    assert await value(cache) == token
    assert cache.stats == {("orders", "fetched"): 1, ("orders", "failed"): 1}


async def test_a_file_that_is_gone_leaves_the_good_token(path: Path, cache: TokenCache) -> None:
    token = fresh()
    path.write_text(token)
    await value(cache)
    path.unlink()

    assert await value(cache) == token
    assert cache.last_error is None


async def test_a_missing_file_is_explained_and_read_as_soon_as_it_appears(
    path: Path, cache: TokenCache
) -> None:
    with pytest.raises(TokenUnavailable) as failure:
        await value(cache)
    assert failure.value.detail == f"token file {path}: it does not exist"
    assert AUDIENCE in failure.value.hint

    token = fresh()
    path.write_text(token)
    assert await value(cache) == token


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        ("", "what came is not an ID token but nothing"),
        ("s3cr3t", "what came is not an ID token but one word of 6 characters"),
        (" " * MOST_BYTES, "not an ID token but nothing"),
        (" " * (MOST_BYTES + 1), f"it is larger than {MOST_BYTES} bytes"),
        (fresh(-60), "the token expired"),
        (fresh(aud="https://another.example"), "the token's aud is"),
    ],
    ids=["empty", "secret", "at the limit", "too large", "expired", "foreign"],
)
async def test_what_cannot_be_used_is_explained(
    path: Path, cache: TokenCache, content: str, detail: str
) -> None:
    path.write_text(content)

    error = await cache.prefetch("orders")
    assert error is not None
    assert detail in error.detail


async def test_a_folder_and_a_pipe_are_not_read(path: Path, cache: TokenCache) -> None:
    path.mkdir()
    error = await cache.prefetch("orders")
    assert error is not None
    assert error.detail == f"token file {path}: it cannot be read: Is a directory"

    path.rmdir()
    os.mkfifo(path)  # To open it, nobody writing, would wait for ever.
    error = await cache.prefetch("orders")
    assert error is not None
    assert error.detail == f"token file {path}: it is not a regular file"
