"""Names that do not resolve, in the whole process: whom they keep waiting, and whom not.

The C library's own look-up is replaced, because which part of the program asks, and in whose
threads, is what is tested.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.fakes.lifelines import OK, calling, document, living, scripted
from tests.fakes.program import Program

CC = shutil.which("cc")

# getaddrinfo(3) that never comes back for names below .hangs, and knows names below .works.
SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <string.h>
#include <unistd.h>

typedef int (*look_up)(const char *, const char *, const struct addrinfo *, struct addrinfo **);

static int ends(const char *name, const char *end) {
    size_t n = strlen(name), e = strlen(end);
    return n >= e && strcmp(name + n - e, end) == 0;
}

int getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
                struct addrinfo **found) {
    if (host != NULL && ends(host, ".hangs"))
        for (;;) pause();
    if (host != NULL && ends(host, ".works"))
        host = "127.0.0.1";
    return ((look_up)dlsym(RTLD_NEXT, "getaddrinfo"))(host, port, hints, found);
}
"""

pytestmark = pytest.mark.skipif(CC is None, reason="no C compiler")


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the library that stands before the C library."""
    folder = tmp_path_factory.mktemp("shim")
    source, library = folder / "names.c", folder / "names.so"
    source.write_text(SHIM)
    subprocess.run(
        [str(CC), "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True, timeout=60
    )
    return library


async def test_names_that_hang_stop_neither_other_calls_nor_the_exit(shim: Path) -> None:
    """Five dead names, each with a caller who waits and one who has gone."""
    dead = [f"dead-{number}" for number in range(5)]
    async with scripted(OK) as upstream:
        port = upstream.port
        routes = {
            name: {"path": f"/{name}", "upstream": f"http://{name}.hangs:{port}", "auth": "none"}
            for name in dead
        }
        routes["named"] = {
            "path": "/named", "upstream": f"http://name.works:{port}", "auth": "none",
        }  # fmt: skip
        routes["local"] = {"path": "/local", "upstream": f"http://localhost:{port}"}
        text = document(upstream, routes=routes, drain="1s")
        program = Program(text, env={"LD_PRELOAD": str(shim)})
        async with living(program):
            async with AsyncExitStack() as stack:
                for name in dead:
                    waiting = await stack.enter_async_context(calling(program))
                    waiting.send(_get(f"/{name}"))
                    async with calling(program) as gone:
                        gone.send(_get(f"/{name}"))
                for path in ("/", "/local", "/named"):
                    async with calling(program) as caller, asyncio.timeout(5):
                        assert (await caller.ask(_get(path))).status == 200
            await program.terminate()
            await program.record(message="drained")
            async with asyncio.timeout(5):
                assert await program.exit_code() == 0
        assert "never retrieved" not in program.output


def _get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def test_the_shim_is_what_it_says(shim: Path) -> None:
    """Otherwise the test above would prove nothing."""
    code = "import socket; print(socket.getaddrinfo('x.works', 80)[0][4][0])"
    done = subprocess.run(
        ["python3", "-c", code],
        env={**os.environ, "LD_PRELOAD": str(shim)},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )

    assert done.stdout == "127.0.0.1\n"
