"""What the doctor looks at before it asks for a token."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest

from proxy.clock import Clocks
from proxy.config.credentials import CREDENTIALS
from proxy.config.model import TokenFile
from proxy.doctor import credentials
from proxy.doctor.credentials import LOOKS, Surroundings, find_origin
from proxy.doctor.findings import Outcome
from proxy.identity.caches import TokenCaches
from proxy.identity.metadata import Metadata
from tests.fakes.steering import jitter


def surroundings() -> Surroundings:
    tokens = TokenCaches(clocks=Clocks(), jitter=jitter(), environ={})
    return Surroundings({}, Metadata({}, Random()), tokens, 1.0)  # noqa: S311 (no secret)


def test_only_kinds_of_credentials_are_looked_at() -> None:
    assert set(LOOKS) <= {kind.cls for kind in CREDENTIALS.values()}


async def test_a_kind_that_is_not_looked_at_is_described_as_its_source_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: dict[Any, Any] = {cls: look for cls, look in LOOKS.items() if cls is not TokenFile}
    monkeypatch.setattr(credentials, "LOOKS", looks)

    origin = await find_origin(TokenFile(Path("/t")), surroundings())

    assert (origin.finding.outcome, origin.finding.text) == (Outcome.OK, "token file /t")
