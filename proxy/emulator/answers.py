"""What the metadata server answers when nothing is wrong.  Sees one request, keeps nothing.

Source of the rules: https://cloud.google.com/compute/docs/metadata/querying-metadata and
https://cloud.google.com/compute/docs/metadata/troubleshooting-metadata-server.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from urllib.parse import unquote

from aiohttp import web

from proxy.emulator import tree
from proxy.emulator.claims import Instance, ServiceAccount
from proxy.emulator.keys import Keys
from proxy.frozen import frozen

FLAVOR = "Metadata-Flavor"
SERVER = "Metadata Server for Serverless"
HTML = "text/html; charset=UTF-8"
TEXT = "application/text"
JSON = "application/json"

IdToken = Callable[[ServiceAccount, str, Instance | None], str]
"""Makes an ID token: account, audience, and the instance where ``format=full`` was asked."""


@frozen
class Facts:
    """Everything an answer is made of."""

    keys: Keys
    account: ServiceAccount | None
    instance: Instance
    id_token: IdToken
    access_token: Callable[[ServiceAccount, tuple[str, ...]], dict[str, str | int]]


def answer(request: web.Request, facts: Facts) -> web.Response:
    """Return the response to `request`."""
    published = {
        "/oauth2/v1/certs": facts.keys.x509_certificates,
        "/oauth2/v3/certs": facts.keys.jwks,
    }
    if request.path in published:
        return _respond(json.dumps(published[request.path](), indent=2), JSON)
    return _refusal(request) or _look_up(request, facts)


def _refusal(request: web.Request) -> web.Response | None:
    # A proxy that forwards a stranger's request must not hand out this instance's tokens:
    # the two header rules are the real server's defence against that.
    if "X-Forwarded-For" in request.headers:
        return _error(403, "A forwarded request (X-Forwarded-For) is not answered.")
    # The bare root is how libraries detect the server; some ask it without the header.
    if request.path != "/" and request.headers.get(FLAVOR) != "Google":
        return _error(403, 'Missing required header "Metadata-Flavor": "Google"')
    if request.method not in {"GET", "HEAD"}:
        return _error(405, "Only GET is understood here.")
    return None


def _look_up(request: web.Request, facts: Facts) -> web.Response:
    root: tree.Directory = {
        "computeMetadata": {"v1": tree.build(facts.instance, facts.account)},
    }
    path = request.rel_url.raw_path
    node = tree.find(root, [unquote(part) for part in path.split("/") if part])
    if node is None or (path.endswith("/") and not isinstance(node, dict)):
        return _error(404, "The requested URL was not found on this server.")
    if isinstance(node, dict) and not path.endswith("/"):
        query = f"?{request.query_string}" if request.query_string else ""
        return _respond("", HTML, 301, {"Location": f"{path}/{query}"})
    if isinstance(node, tree.Live):
        return _live(request, node, facts)
    if request.query.get("recursive", "").lower() == "true" or request.query.get("alt") == "json":
        return _respond(json.dumps(tree.as_json(node)), JSON)
    return _respond(tree.as_text(node), TEXT)


def _live(request: web.Request, kind: tree.Live, facts: Facts) -> web.Response:
    account = facts.account
    if account is None:
        raise AssertionError("without an account there is no key to make a token for")
    if kind is tree.Live.TOKEN:
        # https://cloud.google.com/compute/docs/access/authenticate-workloads: a list with commas.
        asked = request.query.get("scopes", "")
        scopes = tuple(asked.split(",")) if asked else ()
        return _respond(json.dumps(facts.access_token(account, scopes)), JSON)
    audience = request.query.get("audience", "")
    if not audience:
        return _respond("non-empty audience parameter required\n", TEXT, 400)
    full = facts.instance if request.query.get("format") == "full" else None
    return _respond(facts.id_token(account, audience, full), TEXT)


def _respond(
    body: str, content_type: str, status: int = 200, more: dict[str, str] | None = None
) -> web.Response:
    headers = {FLAVOR: "Google", "Server": SERVER, "Content-Type": content_type, **(more or {})}
    return web.Response(status=status, body=body.encode(), headers=headers)


def _error(status: int, text: str) -> web.Response:
    page = f"<!DOCTYPE html>\n<title>Error {status}</title>\n<p><b>{status}.</b> {text}</p>\n"
    return _respond(page, HTML, status)
