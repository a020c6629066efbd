"""The walls between the rooms, as ARCHITECTURE.md draws them: who imports whom, and what."""

from __future__ import annotations

import ast
import io
import json
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "proxy"

# From the top down.  A room imports rooms of lower floors only; rooms of one floor are
# strangers to each other.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("__main__",),
    ("cli",),
    ("doctor", "demo", "remote", "embedded"),
    ("emulate",),
    ("process",),
    ("workers",),
    ("server",),
    ("administration", "complaints", "services", "sockets", "notify", "watch"),
    ("ops",),
    ("plane",),
    ("dialects",),
    ("identity",),
    ("routing", "retry"),
    ("config",),
    ("resolver",),
    ("errors", "unreached", "clock", "deadlines", "redact", "tasks"),
    ("emulator",),
    ("frozen", "system"),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

HOMES: dict[str, set[str]] = {
    # The metadata client and the admin listener: aiohttp starts too slowly.
    "httptools": {"plane", "identity", "ops"},
    "aiohappyeyeballs": {"plane", "identity"},  # A dependency of aiohttp: RFC 8305 for dialling.
    "certifi": {"plane"},  # A dependency of requests: roots where the system has none.
    "google": {"identity"},
    "requests": {"identity", "ops"},  # There as OpenTelemetry sends with it.
    "yaml": {"config"},
    "prometheus_client": {"ops"},
    "opentelemetry": {"ops"},
    "aiohttp": {"doctor", "emulator"},
    "cryptography": {"emulator"},
    "uvloop": {"system"},
}
"""The only rooms that may import a library; a library that is not listed may not be imported."""

# What costs start-up time: Cloud Run starts instances while a caller waits.
HEAVY = ("google.auth", "google.oauth2", "requests", "aiohttp", "cryptography")

FILE_LINES = 650
FUNCTION_LINES = 45

SOURCES = sorted(PACKAGE.rglob("*.py"))


def module_of(source: Path) -> str:
    """Return the dotted name that imports `source`."""
    parts = source.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    """Return the room of ``proxy.room.…``; the package itself, with the version, is in none."""
    return module.split(".")[1] if "." in module else ""


def imports_of(source: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of every import, those inside functions included."""
    package = module_of(source) if source.name == "__init__.py" else module_of(source.parent)
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, name.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                base = ".".join([*parents[: len(parents) - node.level + 1], *filter(None, [base])])
            for name in node.names:
                yield node.lineno, f"{base}.{name.name}"


def is_module(name: str) -> bool:
    """Whether ``proxy.x`` is a module or package, not a name defined in ``proxy/__init__.py``."""
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").exists()


def test_frozen_data_is_not_compiled_at_each_start() -> None:
    made = [
        f"{source.relative_to(ROOT)}:{node.lineno}: @frozen of proxy/frozen.py is made faster"
        for source in SOURCES
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.Call) and "dataclass(frozen=True" in ast.unparse(node)
    ]

    assert made == []


def test_every_module_lives_in_a_room_of_the_plan() -> None:
    homeless = [
        module
        for source in SOURCES
        if (room := room_of(module := module_of(source))) and room not in FLOOR_OF
    ]

    assert homeless == []


def test_a_room_imports_only_rooms_below_it() -> None:
    wrong: list[str] = []
    for source in SOURCES:
        here = room_of(module_of(source))
        for line, name in imports_of(source):
            if name.split(".")[0] != "proxy" or not is_module(".".join(name.split(".")[:2])):
                continue
            there = room_of(name)
            if not here:
                wrong.append(f"{source.relative_to(ROOT)}:{line}: the package imports {name}")
            elif there and there != here and FLOOR_OF.get(there, 0) <= FLOOR_OF.get(here, 0):
                wrong.append(f"{source.relative_to(ROOT)}:{line}: {here} imports {name}")

    assert wrong == []


def test_a_library_is_imported_only_in_its_home() -> None:
    wrong: list[str] = []
    for source in SOURCES:
        room = room_of(module_of(source))
        for line, name in imports_of(source):
            library = name.split(".")[0]
            if library == "proxy" or library in sys.stdlib_module_names:
                continue
            if room not in HOMES.get(library, set()):
                wrong.append(f"{source.relative_to(ROOT)}:{line}: {room} imports {library}")

    assert wrong == []


# Forks once per module from an interpreter that has imported nothing of ours: every module
# is the first of the package, without the price of loading the libraries each time.
IMPORT_EACH = """
import importlib, json, os, sys, traceback, warnings
import aiohttp.web, httptools, prometheus_client, uvloop, yaml
import google.auth, google.oauth2.id_token, cryptography.x509
failed = {}
for name in json.loads(sys.argv[1]):
    read, write = os.pipe()
    if os.fork() == 0:
        try:
            warnings.simplefilter("error")
            importlib.import_module(name)
        except BaseException:
            os.write(write, traceback.format_exc().encode()[-3000:])
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        if said := pipe.read():
            failed[name] = said
    os.wait()
print(json.dumps(failed))
"""


def run_python(*arguments: str) -> str:
    """Return what a fresh interpreter prints; it sees the project and nothing of pytest."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_module_can_be_imported_alone_and_without_a_warning() -> None:
    # `__main__` runs the program.
    modules = [name for source in SOURCES if (name := module_of(source)) != "proxy.__main__"]

    failed = json.loads(run_python("-c", IMPORT_EACH, json.dumps(modules)))

    assert failed == {}


def test_the_command_line_is_read_without_loading_the_heavy_libraries() -> None:
    if not (PACKAGE / "cli.py").exists():
        pytest.skip("proxy/cli.py is not there")

    loaded = run_python("-c", "import proxy.cli, sys; print('\\n'.join(sys.modules))").split()

    assert [name for name in HEAVY if name in loaded] == []


def test_files_stay_below_the_ceiling() -> None:
    long = {
        str(source.relative_to(ROOT)): lines
        for source in SOURCES
        if (lines := len(source.read_text().splitlines())) > FILE_LINES
    }

    assert long == {}


def test_functions_stay_below_the_ceiling() -> None:
    long = {
        f"{source.relative_to(ROOT)}:{node.lineno} {node.name}": lines
        for source in SOURCES
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES
    }

    assert long == {}


def test_every_silenced_warning_says_why() -> None:
    silent: list[str] = []
    for source in [*SOURCES, *sorted((ROOT / "tests").rglob("*.py"))]:
        if "node_modules" in source.parts:
            continue
        for token in tokenize.generate_tokens(io.StringIO(source.read_text()).readline):
            if token.type == tokenize.COMMENT and re.search(
                r"#\s*(noqa|type: ?ignore)", token.string
            ):
                reason = re.sub(
                    r"#\s*(noqa|type: ?ignore)(: ?[A-Z0-9, ]+|\[[\w, -]+\])?", "", token.string
                )
                if not re.search(r"\w", reason):
                    silent.append(f"{source.relative_to(ROOT)}:{token.start[0]}: {token.string}")

    assert silent == []


def test_no_test_module_imports_another_and_fakes_import_no_tests() -> None:
    """What several tests need stands in tests/fakes, or in a helper of their own folder."""
    wrong = []
    for source in sorted((ROOT / "tests").rglob("*.py")):
        if "node_modules" in source.parts:
            continue
        fake = "fakes" in source.parts
        for name in _imported(source):
            last = name.split(".")[-1]
            of_tests = name.startswith("tests.") and not name.startswith("tests.fakes")
            if name.startswith("tests.") and (last.startswith("test_") or (fake and of_tests)):
                wrong.append(f"{source.relative_to(ROOT)} imports {name}")
    assert wrong == []


def _imported(source: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_every_file_that_the_documents_name_exists() -> None:
    """ARCHITECTURE.md names files of the package without its folder, others from the top."""
    named = re.compile(r"`((?:[\w-]+/)+[\w-]+\.(?:py|yaml|md|json))\b")
    documents = ("ARCHITECTURE.md", "BEHAVIOUR.md", "CONTRIBUTING.md", "README.md")
    pages = [*(ROOT / each for each in documents), *(ROOT / "docs").glob("*.md")]
    names = [name for page in pages for name in named.findall(page.read_text())]

    assert [n for n in names if not ((ROOT / n).exists() or (PACKAGE / n).exists())] == []
