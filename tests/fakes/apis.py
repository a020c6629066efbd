"""Google's APIs as client libraries see them: Vertex AI, Cloud Storage, Firestore, Pub/Sub.

They answer what these clients need, over HTTP behind `ApiService`, and over gRPC by themselves.
A handler that fails fails the test.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from concurrent import futures
from types import TracebackType
from typing import Any, Self

import grpc
from aiohttp import BodyPartReader, web

from proxy.emulator.access import AccessTokens
from proxy.emulator.serving import Serving

PROJECT = "/v1/projects/p"
GEMINI = f"{PROJECT}/locations/europe-west1/publishers/google/models/gemini"
CLAUDE = f"{PROJECT}/locations/europe-west1/publishers/anthropic/models/claude"
DOCUMENTS = f"{PROJECT}/databases/(default)/documents/orders"
OBJECTS = "/storage/v1/b/bucket/o"


class CloudApis:
    """Vertex AI, Cloud Storage and Firestore over HTTP, on one port."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.documents: dict[str, Any] = {}
        self.first_seen = asyncio.Event()
        """Set by a client that has read the first event of a stream."""
        self._serving = Serving(self._serve)

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return "127.0.0.1", self._serving.port

    async def __aenter__(self) -> Self:
        await self._serving.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._serving.stop()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        handlers: Mapping[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = {
            f"POST {GEMINI}:streamGenerateContent": self._gemini,
            f"POST {CLAUDE}:rawPredict": self._claude,
            f"POST {CLAUDE}:streamRawPredict": self._claude_stream,
            f"POST {DOCUMENTS}": self._create,
            "GET /seen": self._seen,
            f"POST /upload{OBJECTS}": self._upload,
        }
        handler = handlers.get(f"{request.method} {request.path}")
        if handler is None and request.path.startswith(f"{OBJECTS}/"):
            handler = self._download
        if handler is None and request.path.startswith(f"{DOCUMENTS}/"):
            handler = self._read
        assert handler is not None, f"{request.method} {request.path}"
        return await handler(request)

    # --- Vertex AI

    async def _seen(self, request: web.Request) -> web.Response:
        del request
        self.first_seen.set()
        return web.json_response({})

    async def _gemini(self, request: web.Request) -> web.StreamResponse:
        assert request.query["alt"] == "sse"
        asked = (await request.json())["contents"][0]["parts"][0]["text"]
        response = await _events(request)
        for number, text in enumerate((asked, " is", " fine")):
            if number == 1:
                await self.first_seen.wait()
            part = {"candidates": [{"content": {"parts": [{"text": text}]}}]}
            await response.write(f"data: {json.dumps(part)}\r\n\r\n".encode())
        await response.write_eof()
        return response

    async def _claude(self, request: web.Request) -> web.Response:
        body = await request.json()
        assert "anthropic_version" in body  # What the client for Vertex AI adds.
        return web.json_response(_message(body["messages"][0]["content"]))

    async def _claude_stream(self, request: web.Request) -> web.StreamResponse:
        said = (await request.json())["messages"][0]["content"]
        response = await _events(request)
        delta = {"type": "text_delta", "text": said}
        for event in (
            {"type": "message_start", "message": {**_message(""), "content": []}},
            {"type": "content_block_start", "index": 0, "content_block": _text("")},
            {"type": "content_block_delta", "index": 0, "delta": delta},
            {"type": "content_block_stop", "index": 0},
            {
                "type": "message_delta",
                "delta": {"stop_reason": "end_turn", "stop_sequence": None},
                "usage": {"output_tokens": 1},
            },
            {"type": "message_stop"},
        ):
            await response.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
        await response.write_eof()
        return response

    # --- Firestore

    async def _create(self, request: web.Request) -> web.Response:
        name = request.query["documentId"]
        self.documents[name] = await request.json()
        return web.json_response({"name": f"{DOCUMENTS[4:]}/{name}", **self.documents[name]})

    async def _read(self, request: web.Request) -> web.Response:
        return web.json_response(self.documents[request.path.rpartition("/")[2]])

    # --- Cloud Storage

    async def _upload(self, request: web.Request) -> web.Response:
        assert request.query["uploadType"] == "multipart"
        parts = await request.multipart()
        metadata, media = await parts.next(), await parts.next()
        assert isinstance(metadata, BodyPartReader)
        assert isinstance(media, BodyPartReader)
        # multipart/related has no names: the order says what is what.
        await metadata.read()
        content = bytearray()
        while piece := await media.read_chunk(1 << 20):
            content += piece
        self.objects[request.query["name"]] = bytes(content)
        return web.json_response(self._about(request.query["name"]))

    async def _download(self, request: web.Request) -> web.Response:
        name = request.path.rpartition("/")[2]
        if request.query.get("alt") != "media":
            return web.json_response(self._about(name))
        headers = {"x-goog-hash": f"md5={_md5(self.objects[name])}"}
        return web.Response(body=self.objects[name], headers=headers)

    def _about(self, name: str) -> dict[str, Any]:
        content = self.objects[name]
        size = str(len(content))
        return {"name": name, "bucket": "bucket", "size": size, "md5Hash": _md5(content)}


async def _events(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    response.enable_chunked_encoding()
    await response.prepare(request)
    return response


def _md5(content: bytes) -> str:
    return base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _message(text: str) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [_text(text)],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }


class PubSub(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpcio has no types
    """Pub/Sub's Publish over TLS on a free port; a call needs an access token of `access`."""

    METHOD = "/google.pubsub.v1.Publisher/Publish"

    def __init__(self, access: AccessTokens, credentials: grpc.ServerCredentials) -> None:
        self.published: list[bytes] = []
        """Requests in the form of the wire."""
        self.projects: list[str] = []
        """What calls count on, where they say so."""
        self._access = access
        self._server = grpc.server(futures.ThreadPoolExecutor(4), handlers=(self,))
        self._port = self._server.add_secure_port("localhost:0", credentials)

    @property
    def url(self) -> str:
        """The origin, as a route's upstream."""
        return f"https://localhost:{self._port}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.stop(None).wait()

    def service(self, details: Any) -> Any:
        """Return what answers a call."""
        if details.method == self.METHOD:
            return grpc.unary_unary_rpc_method_handler(self._publish)
        return None

    def _publish(self, request: bytes, context: Any) -> bytes:
        tokens = [v for name, v in context.invocation_metadata() if name == "authorization"]
        if len(tokens) != 1 or self._access.of(str(tokens[0]).removeprefix("Bearer ")) is None:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "Request had invalid credentials.")
        self.published.append(request)
        # PublishResponse {message_ids: ["7"]}: field 1, of one byte.
        return b"\x0a\x017"
