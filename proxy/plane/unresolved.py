"""A route whose service's URL is not known yet."""

from __future__ import annotations

from collections.abc import Callable

from proxy.config.model import ErrorFormat
from proxy.errors import ProxyError, UpstreamConnectFailed


class Unresolved:
    """Stands in the routing table until the service's name has been resolved."""

    __slots__ = ("_ask", "_detail", "_hint", "language", "name")

    def __init__(
        self,
        name: str,
        detail: str,
        hint: str | None,
        ask: Callable[[], None],
        *,
        language: ErrorFormat = ErrorFormat.AUTO,
    ) -> None:
        """`name` is the route's; `ask` is told of every request, so that it tries again.

        `language` is what the route's ``errors`` says.
        """
        self.name = name
        self.language = language
        self._detail = detail
        self._hint = hint
        self._ask = ask

    def failure(self) -> ProxyError:
        """Return what a request gets; the next may find the service resolved."""
        self._ask()
        return UpstreamConnectFailed(self._detail, hint=self._hint)
