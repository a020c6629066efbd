"""Cloud Run Auth Proxy: a sidecar that adds Google ID tokens to calls between services."""

__version__ = "0.1.0"

PROGRAM = "cloud-run-auth-proxy"
"""The command, as it is typed; and what the program calls itself towards others."""


def build() -> str:
    """Return which form of this source runs: ``pure``, or ``compiled`` (by mypyc).

    A wheel has the data path compiled as a whole or not at all, so one of its modules tells.
    """
    # Not before somebody asks: whoever reads the version alone need not wait for it.
    from importlib.util import find_spec  # noqa: PLC0415 (see above)

    spec = find_spec("proxy.plane.exchange")
    origin = (spec and spec.origin) or ""
    return "pure" if origin.endswith(".py") else "compiled"
