"""Each command that the pages tell to type is run by a test, or stands here with why not.

What is not run is still looked at: targets of make exist, the program's own commands are read by
its own parser, files that are named exist, and gcloud's flags are flags of gcloud.
"""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import pytest

from proxy.cli import COMMANDS

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page
    for pattern in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/**/*.md", "deploy/**/*.md")
    for page in ROOT.glob(pattern)
    if "node_modules" not in page.parts
)

PROGRAM = "cloud-run-auth-proxy"
KNOWN = (
    *(PROGRAM, "make", "gcloud", "kubectl", "docker", "terraform", "helm", "gh", "systemctl"),
    *(
        "pip",
        "python",
        "python3",
        "pytest",
        "npm",
        "curl",
        "install",
        "promtool",
        "apt-get",
        "kill",
    ),
)
BLOCK = re.compile(r"^```(sh|console|bash|)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(rf"`((?:[A-Z_]+=\S+ )?(?:{'|'.join(KNOWN)}) [^`]+)`")


def commands(page: Path) -> list[str]:
    """Return what a page tells to type: the lines of its blocks, and commands within the text."""
    text = page.read_text()
    lines = [
        re.sub(r"\s+# .*", "", line)
        for language, block in BLOCK.findall(text)
        for line in block.replace("\\\n", " ").splitlines()
        # Without a language it may be anything: what a command prints, a request.
        if language or line.partition(" ")[0] in KNOWN
    ]
    inline = [each.replace("\\|", "|") for each in INLINE.findall(FENCED.sub("", text))]
    return [" ".join(each.split()) for each in (*lines, *inline) if each.strip()]


TYPED = sorted({each for page in PAGES for each in commands(page)})

_NEWCOMER = "tests/e2e/test_newcomer.py::test_a_newcomer_gets_from_nothing_to_a_mended_mistake"
_RECIPE = "tests/e2e/test_emulator.py::test_the_recipe_of_the_docs_works_as_it_stands"
_DEMO = "tests/e2e/test_demo.py::test_the_second_region_takes_over_when_the_first_one_ends"
_SHUTDOWN = "tests/e2e/test_remote.py::test_shutdown_ends_the_proxy_with_exit_code_0"
_PROMTOOL = "tests/unit/ops/test_deploy.py::test_promtool_accepts_what_is_deployed"
_TOKEN = "tests/e2e/test_token.py::test_a_route_stands_for_its_audience_and_its_credentials"
_SHELL = "tests/unit/test_shell.py::test_the_command_prints_the_script_of_a_shell"

RUN_BY = {
    "make demo": "tests/e2e/test_demo.py::test_make_passes_arguments_on_to_the_demo",
    "python3 -m venv": _NEWCOMER,
    "pip install .": _NEWCOMER,
    "curl": _NEWCOMER,
    "promtool test rules": _PROMTOOL,
    f"{PROGRAM} --version": _NEWCOMER,
    f"{PROGRAM} https://": "tests/e2e/test_emulator.py::test_what_it_prints_leads_the_proxy_there",
    f"{PROGRAM} run": _RECIPE,
    f"{PROGRAM} --config": _RECIPE,
    f"{PROGRAM} emulator": _RECIPE,
    "until grep": _RECIPE,
    ". ./emulator.env": _RECIPE,
    f"{PROGRAM} demo --app": "tests/e2e/test_emulator.py::test_the_demo_serves_an_app_of_ones_own",
    f"{PROGRAM} demo": _DEMO,
    f"{PROGRAM} check": _NEWCOMER,
    f"{PROGRAM} doctor": _NEWCOMER,
    f"{PROGRAM} token": _TOKEN,
    f"{PROGRAM} wait": _NEWCOMER,
    f"{PROGRAM} shutdown": _SHUTDOWN,
    f"{PROGRAM} schema": "tests/unit/test_cli.py::test_schema_prints_the_schema",
    f"{PROGRAM} completion": _SHELL,
}
"""By the words that a command begins with; of several the longest counts."""

_GOOGLE = "it needs a project of Google's; its flags are compared with gcloud's"
_LONG = "it takes minutes, and is run by hand"
_CLUSTER = "it needs a cluster; what it applies has tests"

WHY_NOT = {
    "gcloud": _GOOGLE,
    "kubectl": _CLUSTER,
    "pip install 'cloud-run-auth-proxy[otel]'": "nothing is released yet",
    "docker": "it needs Docker's daemon; tests/e2e/test_image.py builds what the Dockerfile says",
    "terraform": "it needs Terraform's registry and a project; the module has tests",
    "helm": _CLUSTER,
    "gh": "it asks GitHub about a release",
    "systemctl": "it needs systemd as process 1; tests/e2e/test_service_manager.py plays its part",
    "install": "it writes into the system; a test compares its paths with the unit's",
    "apt-get": "it installs into the system; .ci/run does the same",
    "npm": "make does it before the tests",
    "make": "what builds, checks and measures takes minutes; CI runs most of it",
    "python -m tests.": _LONG,
    "AUTH_PROXY_TEST_": _LONG,
}
"""The reason, by the words that a command begins with."""


def begins(command: str, words: str) -> bool:
    return command == words or command.startswith(
        (f"{words} ", words if words[-1] in "/._" else "\0")
    )


@pytest.mark.parametrize("command", TYPED)
def test_each_command_is_run_by_a_test_or_says_why_not(command: str) -> None:
    for part in command.split(" && "):
        part = part.removesuffix(" &").replace("/opt/cloud-run-auth-proxy/bin/", "")
        assert any(begins(part, words) for words in (*RUN_BY, *WHY_NOT)), part


def test_no_test_is_named_for_a_command_that_nobody_is_told() -> None:
    parts = [
        part.replace("/opt/cloud-run-auth-proxy/bin/", "")
        for each in TYPED
        for part in each.split(" && ")
    ]

    assert [words for words in RUN_BY if not any(begins(p, words) for p in parts)] == []


def test_the_tests_that_run_commands_exist() -> None:
    for place in RUN_BY.values():
        file, _, name = place.partition("::")
        assert f"def {name}(" in (ROOT / file).read_text(), place


# The form of what is not run


def of(program: str) -> list[list[str]]:
    """Return the words of each command of a program, without its name and what is left open."""
    found = []
    for each in TYPED:
        words = shlex.split(re.sub(r" \[[^]]+\]| [>|&].*|…", "", each))
        if words[0] == program:
            found.append(words[1:])
    return found


def test_targets_of_make_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {word for words in of("make") for word in words if "=" not in word}

    assert named
    assert named - targets == set()


def test_the_program_takes_its_own_commands() -> None:
    """Its parser ends the process, and this test, with the flags that it does not know."""
    typed = of(PROGRAM)

    assert len(typed) > 10
    for words in typed:
        if words == ["--version"]:
            continue
        name, *flags = words if words[0] in COMMANDS else ["run", *words]
        parser = argparse.ArgumentParser(f"{PROGRAM} {name}", allow_abbrev=False)
        COMMANDS[name].flags(parser)
        parser.parse_args([flag.partition("|")[0] for flag in flags])


def test_files_that_commands_name_exist() -> None:
    path = re.compile(r"\b(?:config|deploy|tests)/[\w./*-]+[\w*]")
    named = {word for each in TYPED for word in path.findall(each)}

    assert len(named) > 5
    assert [name for name in sorted(named) if not any(ROOT.glob(name))] == []


GCLOUD = {
    "auth application-default login": {"--impersonate-service-account", "--scopes"},
    "auth application-default set-quota-project": set(),
    "iam service-accounts add-iam-policy-binding": {"--member", "--role"},
    "iap web add-iam-policy-binding": set(),
    "run deploy": {
        *("--args", "--container", "--cpu", "--depends-on", "--image", "--memory", "--port"),
        *("--region", "--service-account", "--set-env-vars", "--startup-probe", "--use-http2"),
    },
    "run jobs execute": {"--region", "--wait"},
    "run jobs replace": {"--region"},
    "run services add-iam-policy-binding": {"--member", "--region", "--role"},
    "run services describe": set(),
    "run services logs read": {"--limit", "--region"},
    "run services proxy": {"--region"},
    "run services replace": {"--region"},
    "run services update": {"--add-custom-audiences", "--timeout"},
    "secrets add-iam-policy-binding": {"--member", "--role"},
    "secrets create": {"--data-file"},
    "services enable": set(),
}
"""Commands and flags that the pages use, found in gcloud's own table of completions (528.0.0)."""


def test_the_flags_of_gcloud_are_its_own() -> None:
    typed = of("gcloud")

    assert len(typed) > 10
    for words in typed:
        line = " ".join(words)
        [command] = [each for each in GCLOUD if begins(line, each)]
        flags = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert flags <= GCLOUD[command], line
