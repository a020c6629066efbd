"""Cloud Run Auth Proxy under a name that nothing else has.

The program's own package is called `proxy`, as others are: a folder of yours, or another
distribution (`proxy.py`).  Where such a one is found first, importing from here says so::

    from cloud_run_auth_proxy import AuthProxy, Background, emulator

Nothing is imported before it is asked for, since pytest reads this package at each start.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proxy import __version__, emulator
    from proxy.embedded import AuthProxy, Background

__all__ = ["AuthProxy", "Background", "__version__", "emulator"]

_HOMES = {"AuthProxy": "proxy.embedded", "Background": "proxy.embedded", "__version__": "proxy"}
_PROGRAM = "cloud-run-auth-proxy"


def __getattr__(name: str) -> Any:
    """Import what is asked for by its first use (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _check(importlib.import_module("proxy"))
    if name == "emulator":
        return importlib.import_module("proxy.emulator")
    return getattr(importlib.import_module(_HOMES[name]), name)


def _check(found: ModuleType) -> None:
    """Raise ImportError where the name `proxy` leads to somebody else's package."""
    if getattr(found, "PROGRAM", None) != _PROGRAM:
        where = found.__file__ or list(found.__path__)
        raise ImportError(
            f"the name `proxy` leads to another package, {where}: rename that folder, or install "
            f"{_PROGRAM} into an environment without it"
        )
