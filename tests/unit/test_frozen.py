"""Frozen data, held against what `dataclass` makes of the same fields."""

from __future__ import annotations

import dataclasses
import pickle
from dataclasses import FrozenInstanceError, dataclass, field
from typing import Any

import pytest

from proxy.frozen import frozen


@frozen
class Place:
    """Fields with and without defaults."""

    name: str
    line: int = 0
    note: str = field(default="", compare=False)
    secret: str = field(default="hidden", repr=False)
    marks: list[str] = field(default_factory=list, compare=False)


@frozen
class Nothing:
    """No field."""


@frozen
class Nowhere:
    """No field either, and yet another thing."""


@frozen
class One:
    """One field."""

    pair: tuple[int, int]


@frozen(kw_only=True)
class Named:
    """Fields by name, one without a default after one with."""

    first: int = 1
    second: int


class Base:
    """What frozen data may be derived from."""

    __slots__ = ()


@frozen
class Derived(Base):
    """A method of its own."""

    host: str

    def __repr__(self) -> str:
        return f"<{self.host}>"


@frozen
class Longer(Place):
    """Fields of another class first."""

    column: int = 5


@dataclass(frozen=True, slots=True)
class Model:
    """`Place`, made by the standard library."""

    name: str
    line: int = 0
    note: str = field(default="", compare=False)
    secret: str = field(default="hidden", repr=False)
    marks: list[str] = field(default_factory=list, compare=False)


@pytest.mark.parametrize(
    ("values", "named"),
    [(("a",), {}), (("a", 2), {}), (("a",), {"note": "n"}), ((), {"line": 3, "name": "b"}),
     (("a", 1, "n", "s", ["m"]), {}), (("a", 1, "n", "s"), {"marks": ["m"]})],
)  # fmt: skip
def test_values_come_where_a_dataclass_has_them(
    values: tuple[Any, ...], named: dict[str, Any]
) -> None:
    made, model = Place(*values, **named), Model(*values, **named)

    assert dataclasses.asdict(made) == dataclasses.asdict(model)
    assert repr(made) == repr(model).replace("Model", "Place")


@pytest.mark.parametrize(
    ("values", "named", "about"),
    [((), {}, "lacks a value for name"), (("a", 1, "n", "s", [], 6), {}, "takes 5 values"),
     (("a",), {"name": "b"}, "no place for name"), (("a",), {"nome": "b"}, "no place for nome")],
)  # fmt: skip
def test_a_wrong_call_is_refused(
    values: tuple[Any, ...], named: dict[str, Any], about: str
) -> None:
    with pytest.raises(TypeError):
        Model(*values, **named)
    with pytest.raises(TypeError, match=about):
        Place(*values, **named)


def test_fields_by_name_alone() -> None:
    assert repr(Named(second=2)) == "Named(first=1, second=2)"
    with pytest.raises(TypeError, match="takes 0 values"):
        Named(1, second=2)  # type: ignore[call-arg]  # that is the point
    with pytest.raises(TypeError, match="lacks a value for second"):
        Named()  # type: ignore[call-arg]  # as above


def test_equal_values_are_equal_and_hash_alike() -> None:
    assert Place("a", note="x") == Place("a", note="y")
    assert hash(Place("a", note="x")) == hash(Place("a", note="y"))
    assert Place("a") != Place("a", 1)
    assert Place("a") != Place("a", secret="other")
    assert One((1, 2)) == One((1, 2))
    assert hash(One((1, 2))) == hash(One((1, 2)))
    assert Nothing() == Nothing()
    assert len({One((1, 2)), One((1, 2)), One((2, 1)), Nothing(), Nothing(), Nowhere()}) == 4


def test_two_classes_are_never_equal() -> None:
    things: list[object] = [Nothing(), Nowhere(), Place("a"), Longer("a"), "a"]

    assert [[a == b for b in things].count(True) for a in things] == [1] * len(things)


def test_nothing_can_be_changed() -> None:
    place = Place("a")

    with pytest.raises(FrozenInstanceError, match=r"Place\.line"):
        place.line = 1  # type: ignore[misc]  # that is the point
    with pytest.raises(FrozenInstanceError, match=r"Place\.line"):
        del place.line
    with pytest.raises(FrozenInstanceError):
        place.new = 1  # type: ignore[attr-defined]  # as above
    assert not hasattr(place, "__dict__")
    assert place == Place("a")


def test_each_object_has_a_default_of_its_own() -> None:
    Place("a").marks.append("x")

    assert Place("a").marks == []


def test_methods_of_the_class_stay() -> None:
    assert repr(Derived("h")) == "<h>"
    assert isinstance(Derived("h"), Base)


def test_fields_are_inherited() -> None:
    assert Longer("a", 1, "n", "hidden", [], 7) == Longer("a", 1, column=7)
    assert [each.name for each in dataclasses.fields(Longer)][-2:] == ["marks", "column"]


@pytest.mark.parametrize("made", [Place("a", 2, "n"), Nothing(), One((1, 2)), Named(second=3)])
def test_an_object_survives_pickling_and_copying(made: Any) -> None:
    assert repr(pickle.loads(pickle.dumps(made))) == repr(made)  # noqa: S301 (its own)
    assert dataclasses.replace(made) == made


def test_patterns_know_the_fields() -> None:
    match Place("a", 3):
        case Place(name, line):
            assert (name, line) == ("a", 3)
