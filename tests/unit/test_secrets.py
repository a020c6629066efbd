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
from proxy.config.proxies import HttpProxy
from proxy.identity.googleauth import Minted
from proxy.identity.plain_http import Response
from proxy.identity.source import Authority
from proxy.identity.token import IdToken

# What holds a secret is named for it; what only has a part of such a name is listed below.
_NAMES = re.compile(r"token|secret|password|private|authori|assertion|bearer|cookie|body")

_HARMLESS = {
    "config.model.Limits.body_bytes": "a size",
    "config.model.Retries.max_body": "a size",
    "config.model.Route.access_token_hosts": "names of hosts",
    "dialects.base.ErrorAnswer.body": "an error of the proxy's own, which everybody may read",
    "doctor.call.Call.token": "shows itself without its value",
    "doctor.identity.Identity.token": "shows itself without its value",
    "doctor.request.Target.token": "shows itself without its value",
    "emulator.answers.Facts.access_token": "a function",
    "emulator.answers.Facts.id_token": "a function",
    "emulator.faults.Answer.body": "what a test has written",
    "identity.files.CredentialsFile.token_endpoint": "a URL",
    "identity.source.Authority.token_type": "the word Bearer",
    "identity.target.Endpoints.token": "a URL",
    "ops.httpd.Response.body": "a page of the admin listener",
    "ops.numbers.Numbers.destination_tokens": "states and times",
    "ops.numbers.Numbers.tokens": "states and times",
}


def shown() -> Iterator[str]:
    """Yield the fields whose name says that they may be secret and that are printed."""
    for module in pkgutil.walk_packages(proxy.__path__, "proxy."):
        if module.name.endswith("__main__"):
            continue
        for name, found in vars(importlib.import_module(module.name)).items():
            if getattr(found, "__module__", "") == module.name and dataclasses.is_dataclass(found):
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
