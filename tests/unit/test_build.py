"""Which form of the program is tested: pure, or compiled (``make test COMPILED=1``)."""

from __future__ import annotations

import ast
import importlib
import os
import tomllib
from importlib.machinery import ExtensionFileLoader
from pathlib import Path

import pytest

import proxy

ROOT = Path(__file__).parents[2]
HOOK = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"][
    "wheel"
]["hooks"]["mypyc"]
COMPILED = {file.relative_to(ROOT) for pattern in HOOK["include"] for file in ROOT.glob(pattern)}
COMPILED -= {file for file in COMPILED if {file.name, file.as_posix()} & set(HOOK["exclude"])}


def is_compiled(file: Path) -> bool:
    """Tell whether what is imported for a source is machine code."""
    name = ".".join(file.with_suffix("").parts).removesuffix(".__init__")
    return isinstance(importlib.import_module(name).__loader__, ExtensionFileLoader)


def test_the_form_that_was_asked_for_is_the_one_under_test() -> None:
    """Else the checkout's sources would be tested twice."""
    assert proxy.build() == os.environ.get("TESTED_BUILD", "pure")


def test_the_checkout_stays_pure() -> None:
    """Machine code that lies beside a source would be taken in its place, and grow stale."""
    assert not list((ROOT / "proxy").rglob("*.so"))


@pytest.mark.parametrize("pattern", [*HOOK["include"], *HOOK["exclude"]])
def test_what_is_to_be_compiled_is_there(pattern: str) -> None:
    assert list(ROOT.glob(pattern if "/" in pattern else f"proxy/**/{pattern}"))


def test_all_or_nothing_is_compiled() -> None:
    found = {file for file in COMPILED if is_compiled(file)}

    assert found == (COMPILED if proxy.build() == "compiled" else set())


def test_what_does_not_serve_exchanges_is_never_compiled() -> None:
    """Where speed does not matter, sources that can be read and changed do."""
    rooms = {file.parts[1] for file in COMPILED}

    assert rooms <= {"plane", "identity", "retry.py", "routing.py"}


def test_a_name_stands_for_one_kind_of_exception_in_a_function_that_is_compiled() -> None:
    """To mypyc a name has one type in a function, that of the first handler that binds it.

    The others raise TypeError, and mypy does not say so.
    """
    assert [
        f"{file}:{function.lineno} {function.name}: {name}"
        for file in sorted(COMPILED)
        for function in ast.walk(ast.parse((ROOT / file).read_text()))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for name, kinds in bound(function).items()
        if len(kinds) > 1
    ] == []


def test_no_handler_waits_in_a_compiled_module() -> None:
    """To mypyc one exception is handled at a time, in whatever task.

    A handler that waits leaves its own behind, and all that are raised later refer to it.
    """
    assert [
        f"{file}:{found.lineno} {ast.unparse(found)[:60]}"
        for file in sorted(COMPILED)
        for statement in ast.walk(ast.parse((ROOT / file).read_text()))
        if isinstance(statement, ast.Try)
        for part in (*statement.handlers, *statement.finalbody)
        for found in ast.walk(part)
        if isinstance(found, ast.Await | ast.AsyncFor | ast.AsyncWith)
    ] == []


def test_what_a_compiled_module_calls_constant_is_final() -> None:
    """Else it is looked up in a dictionary each time it is named, for some 150 instructions."""
    assert [
        f"{file}:{statement.lineno} {ast.unparse(statement)[:60]}"
        for file in sorted(COMPILED)
        for statement in ast.parse((ROOT / file).read_text()).body
        if names_constants(statement)
        and not (isinstance(statement, ast.AnnAssign) and "Final" in ast.unparse(statement))
    ] == []


def names_constants(statement: ast.stmt) -> bool:
    """Tell whether the statement binds names in capitals (a type variable's apart)."""
    match statement:
        case ast.AnnAssign(target=ast.Name(id=name)):
            return name.strip("_").isupper()
        case ast.Assign(targets=[target], value=value):
            return "TypeVar(" not in ast.unparse(value) and any(
                isinstance(each, ast.Name) and each.id.strip("_").isupper()
                for each in ast.walk(target)
            )
        case _:
            return False


def bound(function: ast.AST) -> dict[str, set[str]]:
    """Return the kinds of exceptions that each name stands for in the handlers of a function."""
    found: dict[str, set[str]] = {}
    for each in ast.walk(function):
        if isinstance(each, ast.ExceptHandler) and each.name and each.type:
            found.setdefault(each.name, set()).add(ast.unparse(each.type))
    return found
