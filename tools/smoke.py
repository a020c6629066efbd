"""One call through the installed program: what was built for another system is tried there.

``python tools/smoke.py [compiled|pure]`` ends with 0 where the call was answered, by the form of
the program that is named.  It takes nothing but the program, for it runs where nothing else is.
"""

from __future__ import annotations

import sys
from urllib.request import ProxyHandler, build_opener

import proxy
from cloud_run_auth_proxy import AuthProxy, Background, emulator


def call() -> bytes:
    """Return what a private service, emulated, answers to a call through the proxy."""
    with (
        Background(emulator.MetadataServer()) as metadata,
        Background(emulator.ProtectedService(metadata.keys)) as service,
        AuthProxy(
            service.url,
            environ=metadata.environ,
            credentials="metadata",
            ca_file=str(service.ca_file),
        ) as running,
        build_opener(ProxyHandler({})).open(f"{running.url}/smoke", timeout=30) as answer,
    ):
        body: bytes = answer.read()
        if len(service.admitted) != 1:
            raise AssertionError(f"{len(service.admitted)} requests were admitted, not one")
        return body


def main(wanted: list[str]) -> int:
    """Run the call; `wanted` may name the form of the program that has to run."""
    form = proxy.build()
    if wanted and wanted != [form]:
        sys.stderr.write(f"the {form} form is installed, not the {wanted[0]} one\n")
        return 1
    sys.stdout.write(f"{proxy.PROGRAM} {proxy.__version__} ({form}): {len(call())} bytes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
