"""One call that was made for a route, and what every explanation of it needs.  Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from proxy.config.addresses import show_place
from proxy.config.egress import proxy_of
from proxy.config.model import Route
from proxy.doctor.answers import Answer
from proxy.doctor.clock import skew_of
from proxy.doctor.request import Question
from proxy.doctor.smells import is_cloud_run
from proxy.doctor.words import again, with_curl
from proxy.frozen import frozen
from proxy.identity.token import Token
from proxy.plane.front_end import service_of

_KINDS = (
    ("K_SERVICE", "services"),
    ("CLOUD_RUN_JOB", "jobs"),
    ("CLOUD_RUN_WORKER_POOL", "worker-pools"),
)
"""https://cloud.google.com/run/docs/container-contract#env-vars"""


@frozen
class Workload:
    """What this process runs in on Cloud Run."""

    kind: str
    """As gcloud calls it: ``services``, ``jobs``."""
    name: str


def workload_of(environ: Mapping[str, str]) -> Workload | None:
    """Return what this process runs in, None outside Cloud Run."""
    for variable, kind in _KINDS:
        if name := environ.get(variable):
            return Workload(kind, name)
    return None


@frozen(kw_only=True)
class Call:
    """A request, its answer, and as whom it was made."""

    route: Route
    """With its upstream."""
    question: Question
    answer: Answer
    token: Token | None
    account: str = ""
    """The account's email, empty if it is not known."""
    fixed_audience: bool = False
    """Whether the token's audience could not be chosen."""
    workload: Workload | None = None
    source: str = ""
    """Where the configuration came from: `Config.source`."""

    @property
    def host(self) -> str:
        """The upstream's host."""
        upstream = self.route.first.upstream
        return upstream.host if upstream is not None else ""

    @property
    def is_cloud_run(self) -> bool:
        """Whether the upstream is called by a URL of Cloud Run's own."""
        return is_cloud_run(self.host)

    @property
    def who(self) -> str:
        """The account, or what stands for it in a command."""
        return self.account or "EMAIL@PROJECT.iam.gserviceaccount.com"

    @property
    def upstream_now(self) -> float | None:
        """What the upstream's clock said at the answer, None where it did not tell."""
        skew = skew_of(self.answer)
        return None if skew is None else self.answer.received_at + skew

    def gcloud(self, verb: str, *flags: str) -> str:
        """Return the command that does `verb` to the called service."""
        service, region = service_of(self.route)
        return " ".join(["gcloud run services", verb, service, f"--region={region}", *flags])

    @property
    def logs(self) -> str:
        """The command that shows why the service did what it did."""
        if self.is_cloud_run:
            return self.gcloud("logs read", "--limit=20")
        minted = again("token", self.route, self.source) if self.token is not None else ""
        return by_hand(self.route, self.question, minted, self.source)

    @property
    def where_names_are(self) -> str:
        """A sentence on what to put for SERVICE and REGION, empty if both are known."""
        if service_of(self.route)[0] != "SERVICE" or not self.is_cloud_run:
            return ""
        label = self.host.partition(".")[0].rpartition("---")[2]
        return f"`gcloud run services list | grep {label}` shows SERVICE and REGION."


def _way(route: Route) -> list[str]:
    """Return curl's options for the way to the upstream; credentials are left out."""
    place, proxy = route.first.connect_to, proxy_of(route, route.first)
    words = []
    if place is not None:
        at = ["--unix-socket", place.path] if place.path else ["--connect-to", f"::{place}"]
        words += at if place.path or place.port else ["--connect-to", f"::{show_place(place)}:"]
    if proxy is not None:
        words += ["--proxy", str(proxy)]
    return words


def by_hand(route: Route, question: Question, minted: str, source: str) -> str:
    """Return the command that makes the same call; it shows no token.

    `minted` is the command that prints the token, empty for a call without; `source` is where the
    configuration came from.
    """
    method = [] if question.method == "GET" else ["-X", question.method]
    ca_file = ["--cacert", str(route.ca_file)] if route.ca_file else []
    url = f"{route.first}{question.path}"
    words = shlex.join(["curl", "-iv", *method, *ca_file, *_way(route), url])
    asked = f'{words} -H "{route.header.value}: Bearer $({minted})"' if minted else words
    return with_curl(asked, f"{again('doctor', route, source)} --path /PATH")
