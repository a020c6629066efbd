"""A large body goes through memory that was used before, not through new pages each time.

nginx is the upstream, because it reads as fast as a service can: what a slow one leaves unread
stays in blocks that are freed later, and the C library keeps them by itself.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.bench.machine import nginx
from tests.bench.servers import free_port
from tests.fakes import proc, tls
from tests.fakes.proxies import Proxies

SIZE = 64 * 1024 * 1024

# Each fault is a page of 4 KiB: a body that goes through new memory once takes as many as it has.
ONCE = SIZE // 4096
FEW = ONCE // 10

CONFIG = """
daemon off;
worker_processes 1;
error_log {folder}/error.log crit;
pid {folder}/nginx.pid;
events {{ }}
http {{
    access_log off;
    client_max_body_size 0;
    client_body_buffer_size 256k;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    ssl_certificate {folder}/server.pem;
    ssl_certificate_key {folder}/server.key;
    server {{
        listen 127.0.0.1:{port} ssl;
        listen 127.0.0.1:{plain};
        location / {{ return 200; }}
        # Passing on makes nginx read the whole body first.
        location /sink {{ proxy_pass http://127.0.0.1:{plain}/; }}
    }}
}}
"""

pytestmark = [
    # How a process begins is not compiled: once is enough.
    pytest.mark.skipif(
        os.environ.get("TESTED_BUILD") == "compiled", reason="the same in both forms"
    ),
    pytest.mark.skipif(shutil.which(nginx()) is None, reason="nginx is not installed"),
    pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt"),
]


@pytest.fixture
async def service() -> AsyncIterator[str]:
    """Serve over TLS, by nginx, what reads uploads and throws them away; yield the origin."""
    with tempfile.TemporaryDirectory() as name:
        # nginx drops root's rights: its worker must reach the files.
        folder = Path(name)
        folder.chmod(0o755)
        async with _served(folder) as origin:
            yield origin


@asynccontextmanager
async def _served(folder: Path) -> AsyncIterator[str]:
    port, plain = free_port(), free_port()
    leaf = tls.authority().issue_cert("localhost")
    leaf.private_key_pem.write_to_path(str(folder / "server.key"))
    leaf.cert_chain_pems[0].write_to_path(str(folder / "server.pem"))
    config = folder / "nginx.conf"
    config.write_text(CONFIG.format(folder=folder, port=port, plain=plain))
    process = await asyncio.create_subprocess_exec(
        nginx(), "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(config)
    )
    try:
        await _accepting(port)
        yield f"https://localhost:{port}"
    finally:
        process.terminate()
        await process.wait()


async def _accepting(port: int) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)
            else:
                writer.close()
                return


async def test_an_upload_asks_for_no_memory_anew(
    proxies: Proxies, service: str, tmp_path: Path
) -> None:
    route = {"upstream": service, "ca_file": str(tls.ca_file(tmp_path)), "auth": "none"}
    document = {"listen": "127.0.0.1:0", "admin": "off", "routes": {"default": route}}
    proxy = await proxies.run(json.dumps(document))
    assert proxy.pid is not None
    await _upload(proxy.address, SIZE // 8)  # What it needs in any case.

    before = proc.page_faults(proxy.pid)
    await _upload(proxy.address, SIZE)
    assert proc.page_faults(proxy.pid) - before < FEW


async def _upload(address: tuple[str, int], size: int) -> None:
    reader, writer = await asyncio.open_connection(*address)
    head = f"POST /sink HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n"
    writer.write(head.encode())
    block = bytes(1024 * 1024)
    for _ in range(size // len(block)):
        writer.write(block)
        await writer.drain()
    assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    writer.close()
    await writer.wait_closed()
