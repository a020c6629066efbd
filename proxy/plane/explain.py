"""What a 401, 403 or 404 of the upstream usually means, and what mends it."""

from __future__ import annotations

from proxy.config.model import Route
from proxy.identity.token import IdToken


def explain(status: int, route: Route, token: IdToken | None) -> tuple[str, str]:
    """Return a sentence on what was refused and one on what to do."""
    account = (token.email if token else None) or "the account of these credentials"
    if status == 401:  # noqa: PLR2004 (RFC 9110, 15.5.2)
        text = (
            f"The upstream of route {route.name} answered 401 to a token of {account}"
            f" for the audience {route.audience}."
        )
        hint = (
            "If the service runs on Cloud Run, the audience must be its run.app URL or one of its"
            " custom audiences: set the route's `audience`. Otherwise the application refused the"
            " caller itself."
        )
        return text, hint
    if status == 404:  # noqa: PLR2004 (RFC 9110, 15.5.5)
        text = (
            f"The upstream of route {route.name} answered 404 with a page: if the application did"
            " not make it, Google's front end did, because the service takes internal traffic only."
        )
        hint = (
            "Look at the service's ingress (gcloud run services describe) and send this service's"
            " traffic through a VPC: --vpc-egress=all-traffic, with Private Google Access."
        )
        return text, hint
    text = (
        f"The upstream of route {route.name} answered 403: {account} may lack"
        " roles/run.invoker on the service."
    )
    return text, grant_command(route, account)


def grant_command(route: Route, account: str) -> str:
    """Return the command that lets `account` call the route's Cloud Run service."""
    service, region = service_of(route)
    kind = "serviceAccount" if account.endswith(".gserviceaccount.com") else "user"
    return (
        f"gcloud run services add-iam-policy-binding {service} --region={region}"
        f" --member={kind}:{account} --role=roles/run.invoker"
    )


def service_of(route: Route) -> tuple[str, str]:
    """Return the service's name and region as far as the URL tells them.

    Deterministic URLs are ``[TAG---]SERVICE-PROJECT_NUMBER.REGION.run.app``; others hold an
    identifier that is not to be parsed (Cloud Run, "Service URLs").
    """
    if route.service is not None:
        return route.service.name, route.service.region or "REGION"
    labels = route.upstream.host.split(".") if route.upstream is not None else []
    if labels[2:] == ["run", "app"]:
        name, _, number = labels[0].rpartition("---")[2].rpartition("-")
        if name and number.isdigit():
            return name, labels[1]
    return "SERVICE", "REGION"
