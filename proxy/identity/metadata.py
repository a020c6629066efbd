"""The metadata server of Cloud Run, Compute Engine and GKE: ID tokens, access tokens, facts.

https://cloud.google.com/run/docs/container-contract#metadata-server
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from random import Random
from urllib.parse import quote

from proxy import PROGRAM, __version__
from proxy.deadlines import Within
from proxy.identity.plain_http import HTTP_PORT, Broken, Response, get
from proxy.identity.source import ANSWER_WITHIN, Authority, TokenSourceError
from proxy.identity.token import finite_seconds, read_claims
from proxy.redact import EXPLANATION, FIRST_WORDS, first_words
from proxy.resolver import Resolver
from proxy.unreached import CHECK_DNS, MORE_FILES, why

DEFAULT_HOST = "metadata.google.internal"

CONNECT_WITHIN = 3.0
"""Seconds; the metadata server is one hop away."""

ATTEMPTS = 3
FIRST_PAUSE = 0.1
"""Between attempts, in seconds, doubled each time.  Longer failures are left to the cache."""

OK, NOT_FOUND = 200, 404

PASSING = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses that may be gone at the next attempt.  429: some keys are rate-limited."""

# Sent as the real server demands; nothing of a caller's request ever gets here.
_HEADERS = {
    "Metadata-Flavor": "Google",
    "User-Agent": f"{PROGRAM}/{__version__}",
    "Accept": "*/*",
}

_ACCOUNT = "instance/service-accounts/default"

WORD = re.compile(r"[\w.:/@+-]{1,1024}", re.ASCII)
"""The form of every value that is read here; a page or a sentence does not have it."""

_PLACE = re.compile(r"(?:http://)?(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?/?")
_LAST_PORT = 65535

NOT_HERE = (
    "This does not look like Google Cloud. On a developer's machine run "
    "`gcloud auth application-default login`; elsewhere set the route's credentials."
)
NO_ACCOUNT = (
    "Give the service an account: "
    "`gcloud run services update SERVICE --service-account=ACCOUNT`; on GKE set up Workload "
    "Identity for the pod."
)
NO_ACCOUNT_IN_POD = (
    "Name the pod's account: `kubectl annotate serviceaccount NAME --namespace=NAMESPACE "
    "iam.gke.io/gcp-service-account=ACCOUNT`, and let it act as that one (roles/"
    "iam.workloadIdentityUser): "
    "https://cloud.google.com/kubernetes-engine/docs/how-to/workload-identity"
)
NO_PLACE = "Write HOST or HOST:PORT, such as 127.0.0.1:8080; the metadata server speaks plain HTTP."


class NoSuchKey(TokenSourceError):
    """The server has no such key: 404."""


class Metadata:
    """Reads keys of the metadata server."""

    def __init__(
        self,
        environ: Mapping[str, str],
        jitter: Random,
        pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
        *,
        resolver: Resolver | None = None,
    ) -> None:
        """`environ`: ``GCE_METADATA_HOST`` leads to another server, as ``host[:port]``.

        ``http://`` before it and a slash after it are ignored; anything else that is not a place
        is reported by the first request, with what to write.
        """
        # GCE_METADATA_ROOT is the older name, which google-auth still reads as well.
        names = ("GCE_METADATA_HOST", "GCE_METADATA_ROOT")
        self._variable = next((name for name in names if environ.get(name)), "")
        named = environ.get(self._variable) or DEFAULT_HOST
        self._address = _split(named)
        self.host = named.removeprefix("http://").removesuffix("/")
        """Where it is, for messages."""
        if self._address is None:
            # A URL may have a password in it, and anything may stand in a variable.
            self.host = f"what {self._variable} names"
        self._jitter = jitter
        self._pause = pause
        self._resolver = resolver or Resolver()

    async def read(self, key: str, fits: re.Pattern[str] = WORD) -> str:
        """Return the value of a key below ``/computeMetadata/v1/``, which `fits` as a whole.

        Raises `TokenSourceError` that names what came instead.
        """
        answer = await self.answer(key)
        value = answer.body.decode("utf-8", "replace").strip()
        if not fits.fullmatch(value):
            raise unfit(f"value of {key}", answer)
        return value

    async def answer(self, key: str) -> Response:
        """Return the 200 response for a key; statuses that pass are asked for again.

        Any server can say 200: whoever calls judges the content, and raises `unfit`.
        """
        try:
            async with Within(ANSWER_WITHIN):
                answer = await self._patiently(f"/computeMetadata/v1/{key}")
        except TimeoutError:
            raise TokenSourceError(f"no answer within {ANSWER_WITHIN:.0f} s", slow=True) from None
        if answer.status != OK:
            raise _refused(key, answer) if _is_its_own(answer) else _another_server(answer)
        return answer

    async def _patiently(self, target: str) -> Response:
        for attempt in range(ATTEMPTS - 1):
            answer = await self._get(target)
            if answer.status not in PASSING:
                return answer
            pause = FIRST_PAUSE * 2**attempt
            await self._pause(self._jitter.uniform(pause / 2, pause))
        return await self._get(target)

    async def _get(self, target: str) -> Response:
        if self._address is None:
            raise TokenSourceError(f"{self._variable} does not name a server", hint=NO_PLACE)
        host, port = self._address
        try:
            return await get(
                host, port, target, _HEADERS, connect_within=CONNECT_WITHIN, resolver=self._resolver
            )
        except Broken as error:
            raise TokenSourceError(str(error), retryable=True) from None
        except OSError as error:
            raise _unreachable(error) from None


class MetadataSource:
    """ID tokens and access tokens of the instance's own service account."""

    def __init__(self, metadata: Metadata, quota_project: str = "") -> None:
        self._metadata = metadata
        self._quota_project = quota_project
        self._account: str | None = None

    def describe(self) -> str:
        """Name the server."""
        return f"metadata server at {self._metadata.host}"

    async def fetch(self, audience: str) -> str:
        """Return the server's ID token for `audience`."""
        # format=full: on Compute Engine the standard form has no email, and IAP wants one.
        key = f"{_ACCOUNT}/identity?audience={quote(audience, safe='')}&format=full"
        answer = await self._metadata.answer(key)
        token = answer.body.decode("utf-8", "replace")
        try:
            read_claims(token)
        except TokenSourceError:
            raise unfit("ID token", answer) from None
        return token

    async def account(self) -> str | None:
        """Return the account's email as the server has it, None while it cannot be reached."""
        if self._account is None:
            try:
                self._account = await self._metadata.read(f"{_ACCOUNT}/email")
            except TokenSourceError:
                return None
        return self._account

    async def authorize(self, scopes: tuple[str, ...] = ()) -> Authority:
        """Return the instance's access token; without `scopes`, with those of the instance.

        https://cloud.google.com/compute/docs/access/authenticate-workloads#applications
        """
        asked = f"?scopes={quote(','.join(scopes), safe='')}" if scopes else ""
        answer = await self._metadata.answer(f"{_ACCOUNT}/token{asked}")
        try:
            token = json.loads(answer.body)
        except (ValueError, RecursionError):
            token = None
        value = token.get("access_token") if isinstance(token, dict) else None
        if not isinstance(value, str):
            raise unfit("access token", answer)
        email = await self.account()
        return Authority(
            value,
            expires_in=finite_seconds(token.get("expires_in")),
            token_type=str(token.get("token_type") or ""),
            member=f"serviceAccount:{email}" if email else "MEMBER",
        ).counted_on(self._quota_project)

    async def close(self) -> None:
        """Nothing is kept open."""


def came(answer: Response) -> str:
    """Say what a response is, without quoting a token."""
    content_type = answer.headers.get("content-type", "no content type").partition(";")[0]
    # What the server itself says of a failure is the best explanation that there is.
    explains = answer.status != OK and _is_its_own(answer) and b"<" not in answer.body
    words = first_words(answer.body, EXPLANATION if explains else FIRST_WORDS)
    return f"status {answer.status}, {content_type}, {words}"


def unfit(wanted: str, answer: Response) -> TokenSourceError:
    """Return the error of a 200 whose content is not what was `wanted`."""
    if not _is_its_own(answer):
        return _another_server(answer)
    return TokenSourceError(f"no {wanted} came but {came(answer)}")


def _is_its_own(answer: Response) -> bool:
    """Tell whether the metadata server, or what poses as it, says that it answered.

    What it omits proves nothing: GKE's has answered tokens without it, and names itself.
    """
    return answer.headers.get("metadata-flavor") == "Google" or _is_gke(answer)


def _is_gke(answer: Response) -> bool:
    return answer.headers.get("server", "").startswith("GKE")


def _another_server(answer: Response) -> TokenSourceError:
    return TokenSourceError(
        f"some other server answered: {came(answer)}, without Metadata-Flavor: Google",
        hint=NOT_HERE,
        retryable=answer.status in PASSING,
    )


def _refused(key: str, answer: Response) -> TokenSourceError:
    if answer.status != NOT_FOUND:
        return TokenSourceError(came(answer), retryable=answer.status in PASSING)
    if key.startswith(_ACCOUNT):
        # GKE's server says so for the first seconds of a pod, too; the next caller asks again.
        in_pod = b"iam.gke.io" in answer.body or _is_gke(answer)
        hint = NO_ACCOUNT_IN_POD if in_pod else NO_ACCOUNT
        return NoSuchKey(f"this instance has no service account ({came(answer)})", hint=hint)
    return NoSuchKey(f"no key {key} ({came(answer)})")


def _unreachable(error: OSError) -> TokenSourceError:
    if isinstance(error, TimeoutError):
        detail = f"no connection within {CONNECT_WITHIN:.0f} s"
        return TokenSourceError(detail, hint=NOT_HERE, slow=True)
    found = why(error)
    hint = found.hint if found.hint in (MORE_FILES, CHECK_DNS) else NOT_HERE
    return TokenSourceError(found.short, hint=hint, retryable=found.kind != "dns_failed")


def _split(text: str) -> tuple[str, int] | None:
    """Split ``[http://]host[:port][/]``, where an IPv6 address stands in brackets."""
    found = _PLACE.fullmatch(text.strip())
    port = int(found[2] or HTTP_PORT) if found else 0
    if found is None or not 0 < port <= _LAST_PORT:
        return None
    return found[1].strip("[]"), port
