"""The Terraform module and its examples, read by a parser of their language.

Neither Terraform nor the google provider can be had from a package index, so `google_provider.json`
has the arguments of the resources that are used, as version 6.50 of the provider declares them.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import hcl2
import pytest
from hcl2 import SerializationOptions

from proxy.config.loading import PLACES, parse
from proxy.config.model import Config
from proxy.config.overrides import gather

ROOT = Path(__file__).parents[3]
MODULE = ROOT / "deploy" / "terraform"
EXAMPLES = sorted(folder for folder in (MODULE / "examples").iterdir())
FOLDERS = [MODULE, *EXAMPLES]
PROVIDER = json.loads(Path(__file__).with_name("google_provider.json").read_text())

# What Terraform itself adds to a resource.
META = {"count", "for_each", "depends_on", "lifecycle", "provider"}

each_folder = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


def read(text: str) -> dict[str, Any]:
    """Return blocks and arguments; a literal text keeps its quotes, an expression is in ``${}``."""
    options = SerializationOptions(with_comments=False, explicit_blocks=False)
    return dict(hcl2.loads(text, serialization_options=options))


def source(folder: Path) -> str:
    return "\n".join(file.read_text() for file in sorted(folder.glob("*.tf")))


@cache
def tree(folder: Path) -> dict[str, Any]:
    return read(source(folder))


def blocks(folder: Path, kind: str) -> dict[str, dict[str, Any]]:
    """Return the folder's blocks of one kind with one label by that label."""
    merged: dict[str, dict[str, Any]] = {}
    for each in tree(folder).get(kind, []):
        merged.update({label.strip('"'): body for label, body in each.items()})
    return merged


def resources(folder: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield type, name and body of each resource."""
    for each in tree(folder).get("resource", []):
        for kind, named in each.items():
            for name, body in named.items():
                yield kind.strip('"'), name.strip('"'), body


def local_names(folder: Path) -> set[str]:
    return {name for each in tree(folder).get("locals", []) for name in each}


def code(folder: Path) -> str:
    """Return the source without comments and texts that are for people."""
    return re.sub(r"#.*|description += .*|error_message += .*", "", source(folder))


def literal(value: Any) -> Any:
    """Return what a value means that contains no expression."""
    if isinstance(value, dict):
        return {key.strip('"'): literal(each) for key, each in value.items()}
    if isinstance(value, list):
        return [literal(each) for each in value]
    if isinstance(value, str):
        assert not value.startswith("${"), value
        return value.strip('"').replace("$${", "${")
    return value


def unfolded(body: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the nested blocks of a block by name, with those that an expression repeats."""
    found = {
        name: value
        for name, value in body.items()
        if isinstance(value, list) and value and all(isinstance(each, dict) for each in value)
    }
    for each in found.pop("dynamic", []):
        for name, repeated in each.items():
            found.setdefault(name.strip('"'), []).extend(repeated["content"])
    return found


def faults(body: dict[str, Any], schema: dict[str, Any], where: str) -> Iterator[str]:
    """Yield what the provider would not take."""
    nested = unfolded(body)
    given = {key: body[key] for key in body.keys() - nested.keys() - META - {"dynamic"}}
    for name, value in given.items():
        kind = schema.get(name)
        if not isinstance(kind, str):
            yield f"{where}: no argument {name}"
        elif not fits(value, kind):
            yield f"{where}: {name} is no {kind}"
    for name in nested.keys() - META:
        yield from faults_of_nested(nested[name], schema.get(name), f"{where}.{name}")
    for name, kind in schema.items():
        described = kind if isinstance(kind, str) else kind[0]
        if described.endswith("required") and name not in given | nested:
            yield f"{where}: {name} is missing"


def faults_of_nested(bodies: list[dict[str, Any]], schema: Any, where: str) -> Iterator[str]:
    """Yield what the provider would not take of the blocks of one name."""
    if not isinstance(schema, list):
        yield f"{where}: no such block"
        return
    number, inner = schema
    if len(bodies) > 1 and not number.startswith("any"):
        yield f"{where}: more than one"
    for each in bodies:
        yield from faults(each, inner, where)


def fits(value: Any, kind: str) -> bool:
    name = kind.removesuffix(", required").split(" of ")[0]
    if isinstance(value, str) and value.startswith("${"):
        return True  # What an expression comes to, only Terraform knows.
    if name == "string":
        return isinstance(value, str) and value.startswith('"')
    if name == "number":
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, {"bool": bool, "list": list, "map": dict}[name])


@each_folder
def test_resources_have_the_arguments_that_the_provider_declares(folder: Path) -> None:
    found = [
        fault
        for kind, name, body in resources(folder)
        for fault in faults(body, PROVIDER[kind]["arguments"], f"{kind}.{name}")
    ]

    assert found == []


TWO_SCALINGS = "template {\n  scaling {\n  }\n  scaling {\n  }\n}"
REPEATED = """
template {
  dynamic "containers" {
    for_each = [1]
    content {
    }
  }
}"""


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("location = 1", "x: location is no string, required"),
        ('deletion_protection = "yes"', "x: deletion_protection is no bool"),
        ('region = "r"', "x: no argument region"),
        ('name = "n"', "x: location is missing"),
        ("template {\n  container {\n  }\n}", "x.template.container: no such block"),
        (TWO_SCALINGS, "x.template.scaling: more than one"),
        (REPEATED, "x.template.containers: image is missing"),
    ],
)
def test_what_the_provider_would_not_take_is_found(text: str, fault: str) -> None:
    schema = PROVIDER["google_cloud_run_v2_service"]["arguments"]

    assert fault in faults(read(f"{text}\n"), schema, "x")


@each_folder
def test_what_is_named_is_declared_and_what_is_declared_is_named(folder: Path) -> None:
    text = code(folder)

    assert set(re.findall(r"\bvar\.(\w+)", text)) == set(blocks(folder, "variable"))
    assert set(re.findall(r"\blocal\.(\w+)", text)) == local_names(folder)


@each_folder
def test_attributes_of_resources_are_those_that_they_have(folder: Path) -> None:
    declared = {(kind, name): PROVIDER[kind] for kind, name, _ in resources(folder)}
    named = re.findall(r"\b(google_\w+)\.(\w+)(?:\[0\])?(?:\.(\w+))?", code(folder))

    assert {(kind, name) for kind, name, _ in named} <= set(declared)
    assert [
        (kind, name, attribute)
        for kind, name, attribute in named
        if attribute
        and attribute not in declared[kind, name]["exports"]
        and attribute not in declared[kind, name]["arguments"]
    ] == []


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_an_example_gives_the_module_what_it_asks_for(folder: Path) -> None:
    variables = blocks(MODULE, "variable")
    required = {name for name, body in variables.items() if "default" not in body}
    outputs = set(blocks(MODULE, "output"))

    for name, call in blocks(folder, "module").items():
        given = call.keys() - {"source"}
        assert (folder / literal(call["source"])).resolve() == MODULE
        assert required <= given <= set(variables)
        assert set(re.findall(rf"\bmodule\.{name}\.(\w+)", code(folder))) <= outputs


def configuration(document: dict[str, Any]) -> Config:
    """Return what the program makes of it, with the environment that the module adds."""
    env = {"AUTH_PROXY_ADMIN": "0.0.0.0:9090"}
    return parse(json.dumps(document), source="config", env={}, overrides=gather({}, env))


def called(env: dict[str, str], config: Config) -> set[str]:
    """Return the paths of the URLs that an app is given; each leads to a listener of the proxy."""
    urls = [urlsplit(value) for value in env.values()]
    assert {url.hostname for url in urls} == {"localhost"}
    assert {url.port for url in urls} == {address.port for address in config.listeners}
    return {url.path or "/" for url in urls}


def test_the_shop_is_configured_so_that_it_may_call_what_it_calls() -> None:
    shop = blocks(MODULE / "examples" / "shop", "module")["shop"]
    config = configuration(literal(shop["config"]))
    services = {
        route["service"].split(".")[0] for route in literal(shop["config"])["routes"].values()
    }

    assert called(literal(shop["env"]), config) == {route.path for route in config.routes}
    assert set(literal(shop["calls"])) == services


def containers(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the containers of the folder's one service by name."""
    [service] = (body for kind, _, body in resources(folder) if kind.endswith("_v2_service"))
    [template] = service["template"]
    return {literal(each["name"]): each for each in template["containers"]}


def test_a_service_of_ones_own_is_configured_so_that_it_may_call_what_it_calls() -> None:
    folder = MODULE / "examples" / "own-service"
    both = containers(folder)
    env = {literal(each["name"]): each["value"] for each in both["auth-proxy"]["env"]}
    text = re.fullmatch(r"\$\{yamlencode\((.*)\)\}", env["AUTH_PROXY_CONFIG_YAML"], re.DOTALL)
    assert text is not None
    document = literal(read(f"config = {text[1]}\n")["config"])
    [invoked] = (body for kind, _, body in resources(folder) if kind.endswith("iam_member"))
    [app_env] = both["app"]["env"]

    assert called({"": literal(app_env["value"])}, configuration(document)) == {"/"}
    assert document["routes"] == {"orders": {"service": literal(invoked["name"])}}
    assert literal(invoked["role"]) == "roles/run.invoker"


@pytest.mark.parametrize("folder", [MODULE, MODULE / "examples" / "own-service"])
def test_probes_ask_the_admin_listener_where_they_can_reach_it(folder: Path) -> None:
    both = containers(folder)
    [startup] = both["auth-proxy"]["startup_probe"]
    [asked] = startup["http_get"]
    admin = re.search(r"AUTH_PROXY_ADMIN(?: = |\"\s+value = )\"([0-9.]+):(.+?)\"", code(folder))
    assert admin is not None

    assert literal(both["app"]["depends_on"]) == ["auth-proxy"]
    assert "ports" not in both["auth-proxy"]
    assert ip_address(admin[1]).is_unspecified
    assert literal(asked["path"]) == "/startup"
    # A port of its own, or the one that is named once for all.
    assert str(asked["port"]) == admin[2]


def test_a_secret_becomes_the_file_that_the_proxy_looks_for() -> None:
    text = code(MODULE)
    folder = re.search(r'config_path = "(.+)"', text)
    file = re.search(r'\bpath += "(\w+\.yaml)"', text)

    assert folder is not None
    assert file is not None
    assert Path(folder[1]) / file[1] in PLACES


def test_the_readme_has_each_variable_with_its_default() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| (?:`(.*?)`)? ?\| \S", (MODULE / "README.md").read_text(), re.MULTILINE
    )
    written = {name: read(f"default = {text}\n")["default"] if text else "-" for name, text in rows}
    declared = {name: body.get("default", "-") for name, body in blocks(MODULE, "variable").items()}

    assert written == declared


def test_terraform_would_write_it_so() -> None:
    program = shutil.which("terraform") or shutil.which("tofu")
    if program is None:
        pytest.skip("neither Terraform nor OpenTofu is installed")

    verdict = subprocess.run(
        [program, f"-chdir={MODULE}", "fmt", "-check", "-recursive", "-diff"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (verdict.stdout, verdict.returncode) == ("", 0), verdict.stderr
