"""What stands around every contender: the service behind it and the metadata server.

The service is nginx, over plain HTTP, TLS, and TLS with HTTP/2.  The metadata server hands
out tokens of a real one's size and shape; nobody in a benchmark checks the signature.
"""

from __future__ import annotations

import base64
import json
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from urllib.request import urlopen

from tests.bench.machine import nginx
from tests.bench.servers import LOAD_CORE, BenchError, Server, free_port
from tests.fakes.tls import authority

HOST = "localhost"
ANSWER = json.dumps(
    {"orders": [{"id": n, "item": "espresso", "quantity": n + 1} for n in range(3)]}
)

NGINX = """
daemon off;
worker_processes 1;
worker_rlimit_nofile 16384;
error_log {folder}/nginx-error.log crit;
pid {folder}/nginx.pid;
events {{ worker_connections 8192; multi_accept on; }}
http {{
    access_log off;
    # Nobody's connection may end in the middle of a turn.
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
    reset_timedout_connection on;
    large_client_header_buffers 8 64k;
    client_max_body_size 0;
    client_body_buffer_size 256k;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    default_type application/json;
    sendfile on;
    ssl_certificate {folder}/server.pem;
    ssl_certificate_key {folder}/server.key;
    ssl_session_cache shared:bench:1m;
    server {{
        listen 127.0.0.1:{plain} backlog=4096;
        listen 127.0.0.1:{tls} ssl backlog=4096;
        listen 127.0.0.1:{h2} ssl http2 backlog=4096;
        http2_max_concurrent_streams 1024;
        http2_max_requests 1000000000;
        location = /json {{ return 200 '{answer}'; }}
        # What arrived as identity header: the proof that a contender does its work.
        location = /token {{ return 200 "$http_x_serverless_authorization"; }}
        location = /blob {{ root {folder}; }}
        # In chunks: server-side includes take its length away.
        location = /chunks {{ alias {folder}/blob; ssi on; ssi_types *; }}
        # Counts connections and requests, this one included.
        location = /status {{ stub_status; }}
        # Passing on makes nginx read the whole body first.
        location = /sink {{ proxy_pass http://127.0.0.1:{plain}/json; }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Counts:
    """What the service has done so far."""

    connections: int
    requests: int
    at: float
    """Seconds of the steady clock."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where everything is that a contender needs."""

    folder: Path
    plain_port: int
    tls_port: int
    h2_port: int
    metadata: str
    """Host and port, as ``GCE_METADATA_HOST`` wants them."""

    @property
    def ca_file(self) -> Path:
        """The authority that signed the service's certificate."""
        return self.folder / "ca.pem"

    def upstream(self, scheme: str) -> str:
        """Return the service's origin for ``tls`` or ``plain``."""
        if scheme == "tls":
            return f"https://{HOST}:{self.tls_port}"
        return f"http://127.0.0.1:{self.plain_port}"

    def counts(self) -> Counts:
        """Ask the service how much it has served."""
        with urlopen(f"http://127.0.0.1:{self.plain_port}/status", timeout=5) as answer:
            text = answer.read().decode()
        found = re.search(r"requests\s+(\d+) \d+ (\d+)", text)
        if found is None:
            raise BenchError(f"nginx said {text}")
        return Counts(int(found[1]), int(found[2]), time.perf_counter())

    def make_blob(self, size: int) -> Path:
        """Make ``/blob`` a file of so many bytes and return its path."""
        path = self.folder / "blob"
        with path.open("wb") as blob:
            blob.truncate(size)
        return path


@contextmanager
def surroundings(folder: Path) -> Iterator[Surroundings]:
    """Start the service and the metadata server; both end with the context.

    `folder` should be in memory: uploads are buffered there.
    """
    plain, tls, h2 = free_port(), free_port(), free_port()
    authority().cert_pem.write_to_path(str(folder / "ca.pem"))
    leaf = authority().issue_cert(HOST, "127.0.0.1")
    leaf.private_key_pem.write_to_path(str(folder / "server.key"))
    for index, pem in enumerate(leaf.cert_chain_pems):
        pem.write_to_path(str(folder / "server.pem"), append=index > 0)
    # nginx drops root's rights: its worker must reach the files.
    folder.chmod(0o755)
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, plain=plain, tls=tls, h2=h2, answer=ANSWER))
    server = Server(
        [nginx(), "-p", folder, "-e", folder / "nginx-error.log", "-c", config],
        core=LOAD_CORE,
        log=folder / "nginx.log",
    )
    with server, metadata_server() as metadata:
        server.wait_for(plain, "/json", ANSWER.encode())
        yield Surroundings(folder, plain, tls, h2, metadata)


@contextmanager
def metadata_server() -> Iterator[str]:
    """Serve ID tokens on a port of 127.0.0.1 and yield ``host:port``."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Metadata)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def make_token(audience: str, now: float) -> str:
    """Return a token as the metadata server makes it, but for the signature: about 900 bytes."""
    claims = {
        "aud": audience,
        "azp": "113774264463038321964",
        "email": "orders-caller@example-project-123456.iam.gserviceaccount.com",
        "email_verified": True,
        "exp": int(now) + 3600,
        "google": {"compute_engine": {"project_id": "example-project-123456", "zone": "us-c1"}},
        "iat": int(now),
        "iss": "https://accounts.google.com",
        "sub": "113774264463038321964",
    }
    head = {"alg": "RS256", "kid": "2f4a5b9c8d7e6f1a0b3c2d4e5f6a7b8c9d0e1f2a", "typ": "JWT"}
    parts = [json.dumps(head).encode(), json.dumps(claims).encode(), os.urandom(256)]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


class _Metadata(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        if self.headers.get("Metadata-Flavor") != "Google" or "X-Forwarded-For" in self.headers:
            self._answer(403, "Forbidden")
        elif "audience" in query:
            # Wall clock: contenders compare exp with theirs.
            self._answer(200, make_token(query["audience"][0], time.time()))  # noqa: TID251 (not the program)
        else:
            self._answer(404, "Not found")

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Metadata-Flavor", "Google")
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the parent's name)
        """Say nothing."""
