"""One of Google's APIs on this machine: TLS, and a front that checks access tokens.

It answers as Google's do: 401 and 403 in JSON with a stable reason, whatever the API.  Behind it
is any server of yours, or the one that echoes; what is admitted reaches it byte for byte::

    access = AccessTokens()
    async with MetadataServer(access=access), ApiService(access, app=("127.0.0.1", 3000)) as api:
        ...  # call api.url with an access token; trust api.ca_file

https://cloud.google.com/apis/design/errors
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus

from proxy.emulator.access import ALL_OF_CLOUD, AccessTokens, Grant
from proxy.emulator.app import Pause, short_pause
from proxy.emulator.pages import Page
from proxy.emulator.service import ProtectedService, ServiceRequest
from proxy.emulator.wire import Request
from proxy.frozen import frozen

_BEARER = re.compile(r"bearer +(\S+)", re.IGNORECASE)
_DOMAIN = "googleapis.com"
_CHALLENGE = 'Bearer realm="https://accounts.google.com/"'
UNAUTHENTICATED, PERMISSION_DENIED = "UNAUTHENTICATED", "PERMISSION_DENIED"
_STATUS = {UNAUTHENTICATED: 401, PERMISSION_DENIED: 403}


@frozen
class ApiError(Page):
    """An error as Google's APIs write it."""

    code: str = UNAUTHENTICATED
    reason: str = ""
    message: str = ""

    def render(self, url: str, *, now: float, method: str = "GET", close: bool = False) -> bytes:
        """Return the whole response; `now` in Unix seconds for Date."""
        del url
        info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": self.reason}
        details = [{**info, "domain": _DOMAIN}] if self.reason else []
        error = {"code": self.status, "message": self.message, "status": self.code}
        body = json.dumps({"error": {**error, "details": details}}, indent=2).encode()
        lines = [
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}",
            *(f"{name}: {value}" for name, value in self.headers),
            "Content-Type: application/json; charset=UTF-8",
            f"Content-Length: {len(body)}",
            f"Date: {formatdate(now, usegmt=True)}",
            "Server: ESF",
            *(["Connection: close"] if close else []),
        ]
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        return head if method == "HEAD" else head + body


def _error(code: str, reason: str, message: str) -> ApiError:
    status = _STATUS[code]
    invalid = "" if reason == "CREDENTIALS_MISSING" else ', error="invalid_token"'
    challenge = (("WWW-Authenticate", _CHALLENGE + invalid),) if code == UNAUTHENTICATED else ()
    return ApiError(status, challenge, code=code, reason=reason, message=message)


_MISSING = _error(
    UNAUTHENTICATED,
    "CREDENTIALS_MISSING",
    "Request is missing required authentication credential. Expected OAuth 2 access token, login "
    "cookie or other valid authentication credential.",
)
_INVALID = "Request had invalid authentication credentials. Expected OAuth 2 access token."
_UNKNOWN = _error(UNAUTHENTICATED, "ACCESS_TOKEN_TYPE_UNSUPPORTED", _INVALID)
_EXPIRED = _error(UNAUTHENTICATED, "ACCESS_TOKEN_EXPIRED", _INVALID)
_TOO_NARROW = _error(
    PERMISSION_DENIED,
    "ACCESS_TOKEN_SCOPE_INSUFFICIENT",
    "Request had insufficient authentication scopes.",
)


def judge(authorization: list[str], access: AccessTokens, scope: str, now: float) -> Grant | Page:
    """Return what the token in the values of ``Authorization`` stands for, or the refusal.

    A token passes at `now` (Unix seconds) if it has `scope`, or that for all of Google Cloud.
    """
    if not authorization:
        return _MISSING
    bearer = _BEARER.fullmatch(authorization[0])
    grant = access.of(bearer[1]) if bearer and len(authorization) == 1 else None
    if grant is None:
        return _UNKNOWN
    if grant.expires_at <= now:
        return _EXPIRED
    return grant if {scope, ALL_OF_CLOUD} & set(grant.scopes) else _TOO_NARROW


class ApiService(ProtectedService):
    """An API of Google's on a free port of the loopback.

    `access` is who issues its tokens; one that is admitted has `scope`, or that for all of Google
    Cloud.  `app` is the server behind, None for one that echoes.  `clock` answers Unix seconds.
    """

    def __init__(
        self,
        access: AccessTokens,
        *,
        scope: str = ALL_OF_CLOUD,
        clock: Callable[[], float] = time.time,  # noqa: TID251 (users run the emulator alone)
        app: tuple[str, int] | None = None,
        pause: Pause = short_pause,
    ) -> None:
        super().__init__(clock=clock, app=app, pause=pause)
        self.access = access
        self.scope = scope
        self.now = clock

    def _admit(self, request: Request) -> bytes | Page:
        fields = [
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in request.head.fields
        ]
        authorization = [value for name, value in fields if name.lower() == "authorization"]
        verdict = judge(authorization, self.access, self.scope, self.now())
        self.requests.add(
            ServiceRequest(
                method=request.method,
                target=request.target.decode("latin-1"),
                headers=tuple(fields),
                claims={"email": verdict.email} if isinstance(verdict, Grant) else None,
                refusal=None,
                status=verdict.status if isinstance(verdict, Page) else None,
            )
        )
        return verdict if isinstance(verdict, Page) else request.head.to_bytes()
