"""A gRPC service on grpcio that does what a request says, and a private one that checks tokens.

Requests and responses are bytes: the first line of a request is JSON, what follows is padding.
With a ``seed`` in it, answers are what `content` makes of that.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from types import TracebackType
from typing import Any, Self

import grpc

from proxy.emulator.keys import Keys
from proxy.emulator.verify import Refusal, verify

SERVICE = "/interop.Test/"
HEADER = "x-serverless-authorization"
LARGEST = 32 * 1024 * 1024

ECHO_INITIAL = "x-echo-initial"
ECHO_TRAILING = "x-echo-trailing-bin"

Metadata = tuple[tuple[str, str | bytes], ...]

OPTIONS = (
    ("grpc.max_receive_message_length", LARGEST),
    ("grpc.max_send_message_length", LARGEST),
    # Beyond the first number grpcio refuses calls at random, beyond the second all of them.
    ("grpc.max_metadata_size", 16 * 1024),
    ("grpc.absolute_max_metadata_size", 32 * 1024),
    # Tests must not share connections through grpcio's pool.
    ("grpc.use_local_subchannel_pool", 1),
)


def content(size: int, seed: int | None) -> bytes:
    """Return the bytes that belong to a seed, zeros without one."""
    return bytes(size) if seed is None else random.Random(seed).randbytes(size)  # noqa: S311 (no secret)


def request(padding: int = 0, **says: Any) -> bytes:
    """Return a request that says these things and has so many bytes of padding."""
    return json.dumps(says).encode() + b"\n" + bytes(padding)


class GrpcService:
    """Serves on a free port of the loopback while it is entered.

    `credentials` make it serve over TLS.  With `audience` and `keys` it is private: a call
    without exactly one valid token for the audience is UNAUTHENTICATED.
    """

    def __init__(
        self,
        credentials: grpc.ServerCredentials | None = None,
        *,
        keys: Keys | None = None,
        options: Sequence[tuple[str, Any]] = (),
    ) -> None:
        self.audience = ""
        self.port = 0
        self.calls: Counter[str] = Counter()
        """By method."""
        self.seen: list[dict[str, list[str | bytes]]] = []
        """The metadata of each call."""
        self.refused: list[str] = []
        """What was wrong with calls that had no valid token."""
        self.cancelled = threading.Semaphore(0)
        """Released for each call that its client gave up."""
        self._keys = keys
        self._credentials = credentials
        self._server = grpc.server(
            futures.ThreadPoolExecutor(64), options=(*OPTIONS, *options), handlers=(_Methods(self),)
        )

    @property
    def address(self) -> str:
        """Host and port."""
        return f"localhost:{self.port}" if self._credentials else f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The origin, as a route's upstream."""
        return f"{'https' if self._credentials else 'http'}://{self.address}"

    def __enter__(self) -> Self:
        if self._credentials:
            # On both addresses of localhost grpcio takes a port that is free on one of them.
            self.port = self._server.add_secure_port("127.0.0.1:0", self._credentials)
        else:
            self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.stop(None).wait()

    def admit(self, method: str, context: Any) -> None:
        """Note a call; end it if it may not pass."""
        self.calls[method] += 1
        metadata: dict[str, list[str | bytes]] = {}
        for name, value in context.invocation_metadata():
            metadata.setdefault(name, []).append(value)
        self.seen.append(metadata)
        context.add_callback(lambda: None if context.code() else self.cancelled.release())
        if self._keys is not None:
            self._check(metadata.get(HEADER, []), context)
        if ECHO_INITIAL in metadata:
            context.send_initial_metadata(((ECHO_INITIAL, metadata[ECHO_INITIAL][0]),))
        if ECHO_TRAILING in metadata:
            context.set_trailing_metadata(((ECHO_TRAILING, metadata[ECHO_TRAILING][0]),))

    def _check(self, tokens: list[str | bytes], context: Any) -> None:
        assert self._keys is not None
        scheme, _, token = str(tokens[0] if len(tokens) == 1 else "").partition(" ")
        # The tokens of the emulated metadata server are real in time too.
        found = verify(token, self._keys, {self.audience}, time.time())  # noqa: TID251 (a fake)
        if scheme != "Bearer" or isinstance(found, Refusal):
            self.refused.append(f"{len(tokens)} tokens: {found}")
            context.abort(grpc.StatusCode.UNAUTHENTICATED, f"{len(tokens)} tokens: {found}")


Handler = Callable[[Any, Any], Any]


class _Methods(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpcio has no types
    def __init__(self, service: GrpcService) -> None:
        self._service = service
        self._methods = {
            "EmptyCall": self._unary(_empty),
            "UnaryCall": self._unary(_unary),
            "StreamingOutputCall": grpc.unary_stream_rpc_method_handler(self._noted(_output)),
            "StreamingInputCall": grpc.stream_unary_rpc_method_handler(self._noted(_input)),
            "FullDuplexCall": grpc.stream_stream_rpc_method_handler(self._noted(_full_duplex)),
            "HalfDuplexCall": grpc.stream_stream_rpc_method_handler(self._noted(_half_duplex)),
        }

    def service(self, details: Any) -> Any:
        return self._methods.get(details.method.removeprefix(SERVICE))

    def _unary(self, handler: Handler) -> Any:
        return grpc.unary_unary_rpc_method_handler(self._noted(handler))

    def _noted(self, handler: Handler) -> Handler:
        def noted(given: Any, context: Any) -> Any:
            self._service.admit(handler.__name__.strip("_"), context)
            return handler(given, context)

        return noted


def _says(given: bytes) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(given.partition(b"\n")[0])
    return said


def _apply(says: dict[str, Any], context: Any) -> None:
    """Do what a request says beside its answer."""
    if "sleep" in says:
        # Ends with the call: a sleeping thread would outlive the test.
        ended = threading.Event()
        context.add_callback(ended.set)
        ended.wait(says["sleep"])
    if "code" in says:
        code = next(code for code in grpc.StatusCode if code.value[0] == says["code"])
        context.abort(code, says.get("message", ""))


def _empty(given: bytes, context: Any) -> bytes:
    del context
    assert given == b""
    return b""


def _unary(given: bytes, context: Any) -> bytes:
    says = _says(given)
    _apply(says, context)
    return content(says.get("size", 0), says.get("seed"))


def _output(given: bytes, context: Any) -> Iterator[bytes]:
    says = _says(given)
    for size in says["sizes"]:
        yield content(size, says.get("seed"))
    _apply(says, context)


def _input(given: Iterator[bytes], context: Any) -> bytes:
    del context
    return str(sum(len(one) for one in given)).encode()


def _full_duplex(given: Iterator[bytes], context: Any) -> Iterator[bytes]:
    for one in given:
        says = _says(one)
        for size in says.get("sizes", ()):
            yield content(size, says.get("seed"))
        _apply(says, context)


def _half_duplex(given: Iterator[bytes], context: Any) -> Iterator[bytes]:
    everything = list(given)
    yield from _full_duplex(iter(everything), context)
