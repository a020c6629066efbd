"""What the upstream answered, and who made the answer.  Pure.

A request to Cloud Run is answered by the service, by Google's front end in its place, or by
Identity-Aware Proxy before both.  Only Google's own answers say anything about tokens and
permissions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field
from email.utils import parsedate_to_datetime
from enum import StrEnum

from proxy.frozen import frozen
from proxy.plane.front_end import DESCRIPTION
from proxy.redact import redact_foreign


class By(StrEnum):
    """Who made an answer."""

    SERVICE = "service"
    GOOGLE = "google"
    IAP = "iap"


UNAUTHORIZED = 401

# The pages of Google's front end, seen in many reports and documented nowhere. Most of them are
# HTML with this beginning; some are a line of text.
_PAGE = re.compile(r"<body text=#000000 bgcolor=#ffffff>\s*<h1>\s*Error:", re.IGNORECASE)
_SENTENCES = (
    "Your client does not have permission to ",
    "The requested URL was not found on this server.",
    "Rate exceeded.",
)
PERIMETER = ("vpcServiceControlsUniqueIdentifier", "VPC_SERVICE_CONTROLS")
"""What Google says, as HTML or as JSON, where VPC Service Controls refuse a call."""

_LINES = (
    "Rate exceeded.",
    "Service Unavailable",
    "upstream connect error or disconnect/reset",
    "upstream request timeout",
)

_LOWEST_ERROR = 400
_NAME = 40  # Characters of a server's name that are shown.


@frozen
class Answer:
    """A response's head, and the beginning of its body."""

    status: int
    fields: Mapping[str, str] = field(default_factory=dict)
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
        if self.status >= _LOWEST_ERROR and (self._refuses_token() or self._is_a_page()):
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

    def _refuses_token(self) -> bool:
        """Whether it says so in Google's words; applications say ``invalid_token``, too."""
        challenge = self.fields.get("www-authenticate", "")
        return self.status == UNAUTHORIZED and DESCRIPTION.decode() in challenge

    def _is_a_page(self) -> bool:
        if any(words in self.body for words in PERIMETER):
            return True
        if not self.fields.get("content-type", "").lower().startswith("text/html"):
            return self.body.startswith(_LINES)
        if not self.body:  # HEAD. The front end stands in `Server` whoever answers.
            return self.fields.get("server", "") == "Google Frontend"
        return bool(_PAGE.search(self.body)) or any(words in self.body for words in _SENTENCES)
