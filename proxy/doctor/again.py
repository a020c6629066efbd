"""This program's own commands, as lines to type.  Pure."""

from __future__ import annotations

import shlex
from typing import Literal

from proxy.config.ignored import TEXT_VARIABLE
from proxy.config.model import Route

PROGRAM = "cloud-run-auth-proxy"


def again(command: Literal["doctor", "token"], route: Route, source: str) -> str:
    """Return the line that runs a command for `route` with the same configuration.

    `source` is where that came from: `Config.source`.
    """
    if "://" in source:  # A URL in place of a configuration.
        word = source if command == "doctor" else route.audience or source
        return shlex.join([PROGRAM, command, word])
    words = [PROGRAM, command, route.name]
    return shlex.join(words if source == TEXT_VARIABLE else [*words, "--config", source])
