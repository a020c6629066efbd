"""Who is measured: each starts in a process of its own with the same duty, to add an ID token.

Every contender verifies the upstream's certificate, speaks HTTP/1.1 to it unless its name
says otherwise, fetches the token from the metadata server and keeps it, and uses one core.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench import calls
from tests.bench.machine import nginx
from tests.bench.servers import PROXY_CORE, BenchError, Server, free_port
from tests.bench.upstream import HOST, Surroundings, make_token
from tests.fakes import envoy

AUDIENCE = "https://orders-abc123-uc.a.run.app"
# To the upstream.  The defaults, ours of 1,000 and Envoy's of 1,024, would make exchanges wait
# or fail at the largest number of connections measured here.
CONNECTIONS = 4096
ENVOY = "type.googleapis.com/envoy.extensions"

# `make bench` installs both forms of this proxy.
PURE = Path(sys.executable).parent / "cloud-run-auth-proxy"
COMPILED = Path(__file__).parents[2] / ".venv-compiled" / "bin" / "cloud-run-auth-proxy"


@dataclass(frozen=True, slots=True)
class Running:
    """A contender that serves: where, how long that took, and its process (none for direct)."""

    url: str
    port: int
    start_ms: float
    server: Server | None = None


@dataclass(frozen=True, slots=True)
class Setup:
    """What a contender is started for."""

    around: Surroundings
    scheme: str = "tls"
    """``tls`` or ``plain``: how it reaches the upstream."""
    routes: int = 1
    """With more than one, requests take the last: ``/r{routes - 1}/…``."""

    grpc: bool = False
    """Whether the upstream serves gRPC, and nothing but HTTP/2."""

    workers: int = 1
    """Processes that serve; of this proxy alone."""
    mixed: bool = False
    """Whether callers may speak HTTP/2 as well, to a service that speaks HTTP/1.1."""

    @property
    def prefix(self) -> str:
        """What stands before a path of the upstream."""
        return f"/r{self.routes - 1}" if self.routes > 1 else ""


Command = Callable[[Setup, int], list[str | Path]]


@dataclass(frozen=True, slots=True)
class Contender:
    """One row of the table."""

    name: str
    label: str
    command: Command | None = None
    """Makes the command line that listens on a port; None for calls without a proxy."""
    startup: Callable[[Setup], int] | None = None
    """Returns the port whose ``/startup`` says that the start is over; None where nothing does."""

    @contextmanager
    def run(self, setup: Setup) -> Iterator[Running]:
        """Start it and yield once it has brought one authenticated answer."""
        if self.command is None:
            port = setup.around.tls_port if setup.scheme == "tls" else setup.around.plain_port
            yield Running(setup.around.upstream(setup.scheme), port, 0.0)
            return
        port = free_port()
        with Server(
            self.command(setup, port),
            core=PROXY_CORE,
            log=setup.around.folder / f"{self.name}.log",
            env=environment(setup.around),
            cwd=setup.around.folder,
        ) as server:
            start = _wait_for_token(setup, server, port)
            # Load is measured once the start is over: ours goes on with the admin listener.
            if self.startup is not None:
                server.wait_for(self.startup(setup), "/startup", b"started")
            yield Running(f"http://127.0.0.1:{port}{setup.prefix}", port, start * 1000, server)


def _wait_for_token(setup: Setup, server: Server, port: int) -> float:
    """Wait for an authenticated answer; return seconds since the start."""
    if not setup.grpc:
        return server.wait_for(port, f"{setup.prefix}/token", b"Bearer ey")
    if not calls.token(port).startswith("Bearer ey"):
        raise BenchError("a contender adds no token to gRPC calls")
    return time.perf_counter() - server.started_at


def environment(around: Surroundings) -> dict[str, str]:
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        # No gcloud settings, no credentials of this machine.
        "HOME": str(around.folder),
        "GCE_METADATA_HOST": around.metadata,
        "GCE_METADATA_IP": around.metadata,
    }


def _route_names(setup: Setup) -> list[str]:
    return [f"r{number}" for number in range(setup.routes)]


def proxy_config(setup: Setup, port: int) -> str:
    """Return this proxy's configuration, as JSON, which is YAML."""
    route: dict[str, Any] = {
        "upstream": setup.around.upstream(setup.scheme),
        "audience": AUDIENCE,
        "auth": "id_token",
        "ca_file": str(setup.around.ca_file),
        "limits": {"connections": CONNECTIONS},
    }
    if setup.mixed:
        route["protocol"] = "h1"
    routes = {
        name: route | ({"path": f"/{name}", "strip_path": True} if setup.routes > 1 else {})
        for name in _route_names(setup)
    }
    document = {
        "listen": f"127.0.0.1:{port}",
        "admin": f"127.0.0.1:{free_port()}",
        "routes": routes,
        "workers": setup.workers,
    }
    return json.dumps(document, indent=1)


def _proxy(program: Path) -> Command:
    def command(setup: Setup, port: int) -> list[str | Path]:
        file = setup.around.folder / "proxy.yaml"
        file.write_text(proxy_config(setup, port))
        return [program, "run", "--config", file]

    return command


def _admin_port(setup: Setup) -> int:
    document = json.loads((setup.around.folder / "proxy.yaml").read_text())
    return int(document["admin"].rpartition(":")[2])


def _tls_to_upstream(setup: Setup) -> dict[str, Any]:
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{ENVOY}.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": HOST,
            "common_tls_context": {
                "validation_context": {
                    "trusted_ca": {"filename": str(setup.around.ca_file)},
                    "match_typed_subject_alt_names": [
                        {"san_type": "DNS", "matcher": {"exact": HOST}}
                    ],
                }
            },
        },
    }


def _cluster(name: str, host: str, port: int, **more: Any) -> dict[str, Any]:
    address = {"socket_address": {"address": host, "port_value": port}}
    limits = {
        "max_connections": CONNECTIONS,
        "max_pending_requests": CONNECTIONS,
        "max_requests": CONNECTIONS,
    }
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "10s",
        "circuit_breakers": {"thresholds": [limits]},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
        **more,
    }


def _service_cluster(setup: Setup) -> dict[str, Any]:
    more: dict[str, Any] = {}
    port = setup.around.plain_port
    if setup.scheme == "tls":
        port = setup.around.tls_port
        more["transport_socket"] = _tls_to_upstream(setup)
    audience = {
        "@type": f"{ENVOY}.filters.http.gcp_authn.v3.Audience",
        "url": AUDIENCE,
    }
    if setup.grpc:
        protocol = f"{ENVOY}.upstreams.http.v3.HttpProtocolOptions"
        options = {"@type": protocol, "explicit_http_config": {"http2_protocol_options": {}}}
        key = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
        more["typed_extension_protocol_options"] = {key: options}
    metadata = {"typed_filter_metadata": {"envoy.filters.http.gcp_authn": audience}}
    return _cluster("orders", "127.0.0.1", port, metadata=metadata, **more)


def _filters() -> list[dict[str, Any]]:
    return [
        {
            "name": "envoy.filters.http.gcp_authn",
            "typed_config": {
                "@type": f"{ENVOY}.filters.http.gcp_authn.v3.GcpAuthnFilterConfig",
                "cluster": "metadata",
                "timeout": "10s",
                # 0, the default, would ask the metadata server for every request.
                "cache_config": {"cache_size": 100},
                "token_header": {"name": "x-serverless-authorization", "value_prefix": "Bearer "},
            },
        },
        {
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": f"{ENVOY}.filters.http.router.v3.Router"},
        },
    ]


def _routes(setup: Setup) -> list[dict[str, Any]]:
    to_orders = {"cluster": "orders", "host_rewrite_literal": HOST, "timeout": "300s"}
    if setup.routes == 1:
        return [{"match": {"prefix": "/"}, "route": to_orders}]
    return [
        {
            "match": {"prefix": f"/{name}/"},
            "route": {**to_orders, "prefix_rewrite": "/"},
        }
        for name in _route_names(setup)
    ]


def envoy_config(setup: Setup, port: int) -> str:
    """Return Envoy's configuration: gcp_authn with its cache, one route table, an admin port."""
    host, _, metadata_port = setup.around.metadata.rpartition(":")
    manager = {
        "@type": f"{ENVOY}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "ingress",
        "codec_type": "AUTO" if setup.mixed else "HTTP2" if setup.grpc else "HTTP1",
        "http_filters": _filters(),
        "route_config": {
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": _routes(setup)}]
        },
    }
    chain = {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
    listener = {
        "name": "ingress",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [chain]}],
    }
    admin = {"socket_address": {"address": "127.0.0.1", "port_value": free_port()}}
    document = {
        "admin": {"address": admin},
        "static_resources": {
            "listeners": [listener],
            "clusters": [_service_cluster(setup), _cluster("metadata", host, int(metadata_port))],
        },
    }
    return json.dumps(document, indent=1)


def _envoy(setup: Setup, port: int) -> list[str | Path]:
    file = setup.around.folder / "envoy.json"
    file.write_text(envoy_config(setup, port))
    return [
        envoy.binary(), "--config-path", file, "--concurrency", "1",
        "--disable-hot-restart", "--log-level", "error",
    ]  # fmt: skip


NGINX = """
daemon off;
worker_processes 1;
worker_rlimit_nofile 16384;
error_log {folder}/nginx-proxy.log crit;
pid {folder}/nginx-proxy.pid;
events {{ worker_connections 16384; multi_accept on; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
    client_max_body_size 0;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream orders {{
        server 127.0.0.1:{upstream_port};
        keepalive 4096;
        keepalive_requests 1000000000;
        keepalive_timeout 600s;
    }}
    server {{
        listen 127.0.0.1:{port} {http2} backlog=4096;
        http2_max_requests 1000000000;
        location / {{
            {kind}_pass {scheme}://orders;
            {kind}_set_header Host {host};
            {kind}_set_header X-Serverless-Authorization "Bearer {token}";
            {kind}_ssl_verify on;
            {kind}_ssl_trusted_certificate {ca_file};
            {kind}_ssl_name {host};
            {kind}_ssl_server_name on;
            {more}
        }}
    }}
}}
"""
# As all the others do it: bodies pass through, connections are kept.
_NGINX_STREAMS = """
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_request_buffering off;"""


def nginx_config(setup: Setup, port: int) -> str:
    """Return the configuration of an nginx that adds a token written in it.

    It fetches and refreshes none: what is left is the price of passing on, in C.
    """
    tls = setup.scheme == "tls"
    scheme = "grpc" if setup.grpc else "http"
    return NGINX.format(
        folder=setup.around.folder,
        port=port,
        upstream_port=setup.around.tls_port if tls else setup.around.plain_port,
        http2="http2" if setup.grpc else "",
        kind="grpc" if setup.grpc else "proxy",
        scheme=f"{scheme}s" if tls else scheme,
        host=HOST,
        # Wall clock: as the metadata server does it.
        token=make_token(AUDIENCE, time.time()),  # noqa: TID251 (not the program)
        ca_file=setup.around.ca_file,
        more="" if setup.grpc else _NGINX_STREAMS,
    )


def _nginx(setup: Setup, port: int) -> list[str | Path]:
    file = setup.around.folder / "nginx-proxy.conf"
    file.write_text(nginx_config(setup, port))
    folder = setup.around.folder
    return [nginx(), "-p", folder, "-e", folder / "nginx-proxy.log", "-c", file]


def build_go(folder: Path) -> Path | None:
    """Build the Go contender into `folder`; None without a Go toolchain."""
    go = shutil.which("go")
    if go is None:
        return None
    binary = folder / "goproxy"
    source = Path(__file__).parent / "go" / "main.go"
    subprocess.run(
        [go, "build", "-o", str(binary), str(source)],
        check=True,
        timeout=180,
        env={**os.environ, "CGO_ENABLED": "0"},
    )
    return binary


def _go(binary: Path, *, http2: bool) -> Command:
    def command(setup: Setup, port: int) -> list[str | Path]:
        upstream = f"https://{HOST}:{setup.around.h2_port}" if http2 else None
        return [
            binary, f"-listen=127.0.0.1:{port}", f"-audience={AUDIENCE}",
            f"-upstream={upstream or setup.around.upstream(setup.scheme)}",
            f"-ca={setup.around.ca_file}", f"-http2={str(http2).lower()}",
        ]  # fmt: skip

    return command


def contenders(folder: Path) -> list[Contender]:
    """Return everybody whose program this machine has, in the order of the table."""
    present = [Contender("direct", "direct, no proxy")]
    if COMPILED.exists():
        label = "**this proxy**, compiled"
        present.append(Contender("proxy", label, _proxy(COMPILED), _admin_port))
    present += [
        Contender("pure", "this proxy, pure Python", _proxy(PURE), _admin_port),
        Contender("envoy", "Envoy, `gcp_authn`", _envoy),
        Contender("nginx", "nginx, a fixed header", _nginx),
    ]
    if (go := build_go(folder)) is not None:
        present.append(Contender("go", "Go, `httputil.ReverseProxy`", _go(go, http2=False)))
        present.append(Contender("go_h2", "the same, HTTP/2 to the upstream", _go(go, http2=True)))
    return present
