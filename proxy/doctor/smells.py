"""What looks wrong in a route's configuration although it is valid.  Pure.

Cloud Run compares a token's ``aud`` with the service's URL, character for character, and
with its custom audiences (https://cloud.google.com/run/docs/configuring/custom-audiences).
A custom audience may be any string, so only what was meant as the service's own URL is
judged here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import SplitResult, urlsplit

from proxy.config.model import Auth, Route, Upstream
from proxy.config.resolve import default_audience
from proxy.doctor.findings import Advice

_BARE_HOST = re.compile(r"[a-z0-9.-]+\.run\.app/?", re.IGNORECASE)
_TAG_END = "---"
_HTTPS_PORT = 443


def audience_smell(route: Route) -> Advice | None:
    """Return what is suspicious about the route's audience, None where nothing is."""
    audience = route.first.audience
    if route.auth is not Auth.ID_TOKEN or audience is None:
        return None
    bare = bool(_BARE_HOST.fullmatch(audience))
    url = _split(f"https://{audience}" if bare else audience)
    if url is None or not _is_meant_as_url(url, route):
        return None
    wrong = [*(["has no https:// before it"] if bare else []), *_faults(url)]
    if not wrong:
        return None
    return Advice(
        reason="audience_suspicious",
        why=f"The audience {audience} {' and '.join(wrong)}; Cloud Run compares it with the "
        "service's URL, character for character.",
        fix=_fix(url, route),
    )


def is_cloud_run(host: str) -> bool:
    """Whether a host is one that Cloud Run itself gives to services."""
    return host.lower().endswith(".run.app")


def _split(audience: str) -> SplitResult | None:
    try:
        url = urlsplit(audience)
        # The port is checked when it is read.
        return url if url.hostname and url.port != 0 else None
    except ValueError:
        return None


def _is_meant_as_url(url: SplitResult, route: Route) -> bool:
    if is_cloud_run(url.hostname or ""):
        return True
    return _is_default(_cleaned(url), route)


def _is_default(audience: str, route: Route) -> bool:
    upstream = route.first.upstream
    return upstream is not None and audience == default_audience(upstream)


def _cleaned(url: SplitResult) -> str:
    """Return the audience as Cloud Run expects it."""
    host = (url.hostname or "").lower()
    return default_audience(Upstream("https", host, url.port or _HTTPS_PORT))


def _faults(url: SplitResult) -> Iterator[str]:
    """Yield what is wrong with a service's URL as an audience, as predicates."""
    if url.scheme != "https":
        yield f"begins with {url.scheme}://"
    tag, tag_end, _ = url.netloc.partition(".")[0].partition(_TAG_END)
    if tag_end:
        yield f"has a revision's tag ({tag}{tag_end})"
    if url.netloc != url.netloc.lower():
        yield "has capital letters"
    if url.port == _HTTPS_PORT:
        yield "names the port 443"
    if url.path.strip("/"):
        yield f"has a path ({url.path})"
    elif url.path:
        yield "ends with a slash"
    if url.query or url.fragment:
        yield "has a query or a fragment"


def _fix(url: SplitResult, route: Route) -> str:
    clean = _cleaned(url)
    if _is_default(clean, route):
        return f"Leave the route's audience out: its default is {clean}."
    return f"Write audience: {clean}, or make this string a custom audience of the service."
