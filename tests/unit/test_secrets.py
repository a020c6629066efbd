"""No object shows a secret that it holds when it is printed: in a traceback, a log, a debugger."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import re
import traceback
from collections.abc import Iterator
from typing import Any

import pytest

import proxy
from proxy.config.loading import ConfigSource
from proxy.config.proxies import HttpProxy
from proxy.identity.googleauth import Minted
from proxy.identity.plain_http import Response
from proxy.identity.source import Authority
from proxy.identity.token import IdToken
from proxy.ops.httpd import Request
from tests.unit.config.reading import route

# What holds a secret is named for it; what only has a part of such a name is listed below.
_NAMES = re.compile(
    r"token|secret|password|private|authori|assertion|bearer|cookie|body"
    r"|headers|fields|query|environ|text|piped"
)

_HARMLESS = {
    "config.model.Limits.body_bytes": "a size",
    "config.model.Retries.max_body": "a size",
    "config.model.Route.access_token_hosts": "names of hosts",
    "config.kinds.Word.is_text": "yes or no",
    "config.model.Route.remove_headers": "names",
    "dialects.base.ErrorAnswer.body": "an error of the proxy's own, which everybody may read",
    "dialects.base.ErrorAnswer.fields": "as its body",
    "doctor.call.Call.token": "shows itself without its value",
    "doctor.findings.Finding.text": "a line of the report",
    "doctor.identity.Identity.token": "shows itself without its value",
    "doctor.request.Silence.text": "a line of the report",
    "doctor.request.Target.token": "shows itself without its value",
    "emulator.answers.Facts.access_token": "a function",
    "emulator.answers.Facts.id_token": "a function",
    "emulator.api.ApiError.headers": "what the emulator says to everybody",
    "emulator.faults.Answer.body": "what a test has written",
    "emulator.faults.Answer.headers": "what a test has written",
    "emulator.metadata.MetadataRequest.headers": "what asks for a token, with none",
    "emulator.metadata.MetadataRequest.query": "an audience",
    "emulator.pages.Page.headers": "what the emulator says to everybody",
    "identity.files.CredentialsFile.token_endpoint": "a URL",
    "identity.plain_http.Response.headers": "the metadata server's; the token is in the body",
    "identity.source.Authority.token_type": "the word Bearer",
    "identity.target.Endpoints.token": "a URL",
    "ops.httpd.Response.body": "a page of the admin listener",
    "ops.httpd.Response.headers": "a page of the admin listener",
    "ops.numbers.Numbers.destination_tokens": "states and times",
    "ops.numbers.Numbers.tokens": "states and times",
    "remote.Reply.text": "a page of the admin listener",
}


def shown() -> Iterator[str]:
    """Yield the fields whose name says that they may be secret and that are printed."""
    for module in pkgutil.walk_packages(proxy.__path__, "proxy."):
        if module.name.endswith("__main__"):
            continue
        for name, found in vars(importlib.import_module(module.name)).items():
            if not isinstance(found, type) or found.__module__ != module.name:
                continue
            if dataclasses.is_dataclass(found):
                where = f"{module.name}.{name}".removeprefix("proxy.")
                for field in dataclasses.fields(found):
                    if field.repr and _NAMES.search(field.name):
                        yield f"{where}.{field.name}"


def test_what_may_be_secret_is_not_printed() -> None:
    assert sorted(shown()) == sorted(_HARMLESS)


SECRET = "do-not-show"


@pytest.mark.parametrize(
    "holder",
    [
        IdToken(value=SECRET, expires_at=1.0, email=None, audience="https://a.example"),
        Authority(SECRET),
        Minted(SECRET, None),
        Response(200, {}, SECRET.encode()),
        HttpProxy("proxy.example", 3128, SECRET),
        ConfigSource(text=f"routes: {{a: {{set_headers: {{X-Key: {SECRET}}}}}}}"),
        Request("GET", "/status", SECRET, {"authorization": SECRET}, None),
        route(f"upstream: https://a.example, set_headers: {{X-Key: {SECRET}}}"),
    ],
    ids=lambda holder: type(holder).__name__,
)
def test_what_holds_one_is_printed_without_it(holder: Any) -> None:
    def fail() -> None:
        raise AssertionError(f"with {holder!r}")

    with pytest.raises(AssertionError) as caught:
        fail()

    whole = "".join(traceback.format_exception(caught.value))
    assert type(holder).__name__ in whole
    assert SECRET not in whole
