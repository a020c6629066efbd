"""What the upstream answered, and who made the answer.  Pure.

A request to Cloud Run is answered by the service, by Google's front end in its place, or by
Identity-Aware Proxy before both.  Only Google's own answers say anything about tokens and
permissions.  Which are the front end's is decided where the data path decides it
(`plane.front_end`), so that doctor and callers are told the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from email.utils import parsedate_to_datetime
from enum import StrEnum

from proxy.frozen import frozen
from proxy.plane.front_end import is_page, is_platform
from proxy.plane.head import ResponseHead, block
from proxy.redact import redact_foreign


class By(StrEnum):
    """Who made an answer."""

    SERVICE = "service"
    GOOGLE = "google"
    IAP = "iap"


PERIMETER = ("vpcServiceControlsUniqueIdentifier", "VPC_SERVICE_CONTROLS")
"""What Google says, as HTML or as JSON, where VPC Service Controls refuse a call."""

# Between the front end and this machine alone (RFC 9110, 7.6.1); the data path has them off.
_HOP_BY_HOP = frozenset(("connection", "keep-alive", "transfer-encoding"))

_FORBIDDEN = 403
_LOWEST_ERROR = 400
_NAME = 40  # Characters of a server's name that are shown.


@frozen
class Answer:
    """A response's head, and the beginning of its body."""

    status: int
    fields: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Names in lower case; of repeated fields the first one."""
    body: str = field(default="", repr=False)
    seconds: float = 0.0
    """From the beginning of the request to the head."""
    received_at: float = 0.0
    """Wall clock."""

    @property
    def by(self) -> By:
        """Who made it, as far as it shows."""
        # https://cloud.google.com/iap/docs/query-parameters-and-headers-howto
        if self.fields.get("x-goog-iap-generated-response", "").lower() == "true":
            return By.IAP
        head, body = self._head, self.body.encode()
        if is_platform(head, body) or self._is_perimeter():
            return By.GOOGLE
        if body and self.status >= _LOWEST_ERROR and is_page(head, body):
            return By.GOOGLE
        return By.SERVICE

    @property
    def server(self) -> str:
        """Its ``Server`` field, on one line; empty if there is none."""
        return redact_foreign(self.fields.get("server", ""), _NAME)

    @property
    def date(self) -> float | None:
        """When the upstream made it, by its own clock (RFC 9110, 6.6.1); Unix seconds."""
        try:
            return parsedate_to_datetime(self.fields.get("date", "")).timestamp()
        except (ValueError, OverflowError):
            return None

    @property
    def _head(self) -> ResponseHead:
        """What the data path would make of its head."""
        fields = (
            (name.encode("latin-1", "replace"), value.encode("latin-1", "replace"))
            for name, value in self.fields.items()
            if name not in _HOP_BY_HOP
        )
        return ResponseHead(self.status, block(fields))

    def _is_perimeter(self) -> bool:
        """Whether VPC Service Controls refuse the call; the data path has no words for that."""
        return self.status == _FORBIDDEN and any(words in self.body for words in PERIMETER)
