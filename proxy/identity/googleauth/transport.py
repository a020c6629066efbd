"""HTTP for google-auth, bounded in time, with failures that say what happened.

google-auth's own transport waits up to 120 s for each answer, follows redirects and retries
inside; here one deadline holds for everything that one token needs.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import requests
from google.auth import transport
from requests.adapters import HTTPAdapter

from proxy.config.egress import proxy_for
from proxy.config.misplaced import shown_file
from proxy.config.proxies import Egress, Scheme
from proxy.identity.source import TokenSourceError
from proxy.identity.target import Means
from proxy.unreached import MORE_FILES, check, is_told, no_tls, speaks_no_tls, why

_CA_HINT = (
    "Where a proxy inspects TLS, put its certificate into a bundle and name that in "
    "REQUESTS_CA_BUNDLE."
)


class Response(transport.Response):
    """A response in google-auth's words."""

    def __init__(self, response: requests.Response) -> None:
        self._response = response

    @property
    def status(self) -> int:
        """The status code."""
        return self._response.status_code

    @property
    def headers(self) -> Mapping[str, str]:
        """The header fields, names in any case."""
        return self._response.headers

    @property
    def data(self) -> bytes:
        """The body."""
        return self._response.content


class _Adapter(HTTPAdapter):
    """Adds the credentials of a proxy, which stand in no URL: those end up in messages."""

    def __init__(self, egress: Egress) -> None:
        super().__init__()
        self._authorization = {
            str(each): each.authorization for each in (egress.https, egress.http) if each
        }

    def proxy_headers(self, proxy: str) -> dict[str, str]:
        """Return what is said to `proxy` alone."""
        authorization = self._authorization.get(proxy, "")
        return {"Proxy-Authorization": authorization} if authorization else {}


class BoundedRequest(transport.Request):
    """Makes the requests for one token; nothing is sent after `within` seconds."""

    def __init__(self, means: Means, within: float) -> None:
        self._clock = means.clock
        self._egress = means.egress
        self._within = within
        self._deadline = means.clock() + within
        self.last: Response | None = None
        """The answer to the last request."""
        self._session = requests.Session()
        for prefix in ("https://", "http://"):
            self._session.mount(prefix, _Adapter(means.egress))
        # CA bundles of the environment hold for Google's APIs. Credentials of ~/.netrc do
        # not: requests would put them over the Authorization that was asked for.
        self._session.auth = lambda request: request

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._session.close()

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **more: Any,
    ) -> Response:
        """Send one request and return the response, whatever its status.

        Raises `TokenSourceError` where there is none.
        """
        left = self._deadline - self._clock()
        host = urlsplit(url).netloc.rpartition("@")[2]
        if left <= 0:
            raise self._too_slow(host)
        try:
            response = self._session.request(
                method,
                url,
                data=body,
                headers=headers,
                timeout=left if timeout is None else min(left, timeout),
                proxies=self._proxies(url),
                # Requests carry secrets, so they go where they were meant to, or nowhere.
                allow_redirects=False,
                **more,
            )
        except requests.Timeout:
            raise self._too_slow(host) from None
        except requests.exceptions.SSLError as error:
            raise _unverified(host, error) from None
        except requests.RequestException as error:
            raise _unreachable(host, error) from None
        except OSError as error:  # requests lets a missing CA bundle through.
            # It ends in the value of REQUESTS_CA_BUNDLE, which may be anything.
            what, colon, name = str(error).rpartition(": ")
            said = f"no request to {host}: {what}{colon}{shown_file(name)}"
            raise TokenSourceError(said, hint=_CA_HINT) from None
        self.last = Response(response)
        return self.last

    def _proxies(self, url: str) -> dict[str, Any]:
        """Return the proxy for `url` as requests wants it; None keeps it from looking further."""
        parts = urlsplit(url)
        scheme: Scheme = "https" if parts.scheme == "https" else "http"
        proxy = proxy_for(self._egress, scheme, (parts.hostname or "").removesuffix("."))
        return {
            "https": None,
            "http": None,
            "all": None,
            scheme: None if proxy is None else str(proxy),
        }

    def _too_slow(self, host: str) -> TokenSourceError:
        return TokenSourceError(f"{host} did not answer within {self._within:.0f} s", slow=True)


def _unverified(host: str, error: requests.exceptions.SSLError) -> TokenSourceError:
    if speaks_no_tls(error):
        return TokenSourceError(no_tls(host).removesuffix("."), hint="Correct the port of the URL.")
    return TokenSourceError(f"TLS to {host} cannot be verified", hint=_CA_HINT)


def _unreachable(host: str, failed: requests.RequestException) -> TokenSourceError:
    # The text of urllib3's exceptions names the cause; their types are wrapped differently
    # from version to version.
    error = _as_system_said(failed)
    hint = f"Requests to {host} have to get out: check egress, DNS and the egress proxy."
    at_proxy = isinstance(failed, requests.exceptions.ProxyError)
    if not is_told(error):
        if at_proxy:  # It was reached.
            detail = f"the egress proxy does not let requests to {host} through"
            return TokenSourceError(detail, hint=hint)
        detail = f"{host} cannot be reached: {type(failed).__name__}"
        return TokenSourceError(detail, hint=hint, retryable=True)
    found = why(error)
    if at_proxy:
        host, hint = "the egress proxy", check(found, "proxy")
    elif found.hint == MORE_FILES:
        hint = MORE_FILES
    return TokenSourceError(f"{host} cannot be reached: {found.short}", hint=hint, retryable=True)


def _as_system_said(error: requests.RequestException) -> Exception:
    """Return the error of a name that was not found as the system's own, any other as it is."""
    found = re.search(r"Failed to resolve [^(]*\(\[Errno (-?\d+)\] ([^)]*)\)", f"{error}")
    return error if found is None else socket.gaierror(int(found[1]), found[2])
