"""Frozen data: what `dataclass(frozen=True, slots=True)` makes, without compiling program text.

A dataclass writes the text of six methods for each class and compiles it, 0.7 ms a class with
Python 3.11: for sixty classes that was a quarter of the start, which callers wait for.  Here the
methods are closures over the names of the fields.  The fields are still a dataclass's, so `fields`,
`replace`, `asdict` and `match` know them.  Price: making an object with names or defaults takes
twice as long, a microsecond more; what each exchange makes is a plain class anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, FrozenInstanceError, dataclass, field, fields
from operator import attrgetter
from typing import Any, NoReturn, TypeVar, dataclass_transform, overload

T = TypeVar("T")


@overload
def frozen(cls: type[T], /) -> type[T]: ...


@overload
def frozen(*, kw_only: bool = False) -> Callable[[type[T]], type[T]]: ...


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: type[Any] | None = None, /, *, kw_only: bool = False) -> Any:
    """Make `cls` a class whose objects cannot be changed, compare by value and can be hashed.

    With `kw_only` all fields are given by name.  A method that the class defines itself stays.
    There is no order, no ``__post_init__`` and no field with ``init=False``.
    """

    def make(cls: type[Any]) -> type[Any]:
        own = set(vars(cls))
        made = dataclass(slots=True, init=False, repr=False, eq=False, kw_only=kw_only)(cls)
        for name, method in _methods(made, by_place=not kw_only).items():
            if name not in own:
                setattr(made, name, method)
        return made

    return make if cls is None else make(cls)


def _methods(cls: type[Any], *, by_place: bool) -> dict[str, Callable[..., Any]]:
    """Return the methods of `cls`; `by_place` says whether values may come without names."""
    described = fields(cls)
    names = [each.name for each in described]
    slots = [getattr(cls, name).__set__ for name in names]
    all_of = _reader(names)
    compared = _reader([each.name for each in described if each.compare])
    completed = _completing(described, len(names) if by_place else 0)
    # So many values without names are all there are; -1: there are always names.
    count = len(names) if by_place or not names else -1

    def initialise(self: object, *values: Any, **named: Any) -> None:
        is_short = named or len(values) != count
        all_values = completed(type(self).__name__, values, named) if is_short else values
        for assign, value in zip(slots, all_values, strict=True):
            assign(self, value)

    def equal(self: object, other: object) -> bool:
        return compared(self) == compared(other) if type(other) is type(self) else NotImplemented

    return {
        "__init__": initialise,
        "__eq__": equal,
        "__hash__": lambda self: hash(compared(self)),
        "__repr__": _represent,
        "__setattr__": _refuse,
        "__delattr__": _refuse,
        # For pickle, which would set the fields one by one.
        "__reduce__": lambda self: (_restored, (type(self), all_of(self))),
    }


def _reader(names: Sequence[str]) -> Callable[[object], tuple[Any, ...]]:
    """Return what reads these fields of an object into a tuple."""
    if len(names) > 1:  # For one name attrgetter makes no tuple.
        return attrgetter(*names)
    return lambda self: tuple([getattr(self, name) for name in names])


def _completing(
    described: Sequence[Field[Any]], placed: int
) -> Callable[[str, tuple[Any, ...], dict[str, Any]], list[Any]]:
    """Return what puts the values of a call in the order of the fields.

    The first `placed` fields may be given without names.  What it returns raises `TypeError` as a
    wrong call of any function does.
    """
    names = [each.name for each in described]
    defaults = {each.name: each.default for each in described if each.default is not MISSING}
    makers = {
        each.name: each.default_factory for each in described if each.default_factory is not MISSING
    }

    def complete(cls: str, values: tuple[Any, ...], named: dict[str, Any]) -> list[Any]:
        if len(values) > placed:
            raise TypeError(f"{cls} takes {placed} values without names, not {len(values)}")
        found = list(values)
        for name in names[len(values) :]:
            if name in named:
                found.append(named.pop(name))
            elif name in defaults:
                found.append(defaults[name])
            elif name in makers:
                found.append(makers[name]())
            else:
                raise TypeError(f"{cls} lacks a value for {name}")
        if named:
            raise TypeError(f"{cls} has no place for {', '.join(named)}")
        return found

    return complete


def _represent(self: Any) -> str:
    shown = [f"{each.name}={getattr(self, each.name)!r}" for each in fields(self) if each.repr]
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _refuse(self: object, name: str, _value: object = None) -> NoReturn:
    raise FrozenInstanceError(f"{type(self).__name__}.{name} cannot be changed")


def _restored(cls: type[T], values: tuple[Any, ...]) -> T:
    """Return an object of `cls` with these values of its fields, in their order."""
    names = [each.name for each in fields(cls)]  # type: ignore[arg-type]  # it is one
    return cls(**dict(zip(names, values, strict=True)))
