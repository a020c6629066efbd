"""What asks for connections to an upstream."""

from __future__ import annotations

from typing import Protocol

from proxy.plane.head import RequestHead


class Applicant(Protocol):
    """What asks for a connection: an exchange."""

    head: RequestHead

    @property
    def is_whole(self) -> bool:
        """Whether all of the request has come."""
