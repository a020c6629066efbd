"""The browser that the status page is shown to."""

from __future__ import annotations

import shutil

CHROMIUM = shutil.which("chromium")
"""Where it is; None where it is not installed."""

# Nothing but the page may be asked for, so that a request to elsewhere is the page's.
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
