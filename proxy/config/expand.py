"""``${VAR}`` and ``${VAR:-default}`` in a value. Pure: text and environment in, text out."""

from __future__ import annotations

import re
from collections.abc import Mapping

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DEEPEST = 8  # Defaults inside defaults; a bound for the recursion, far above any use.


def expand(text: str, env: Mapping[str, str]) -> str:
    """Replace every variable in `text`; ``$$`` is a dollar.

    As in a shell, ``:-`` also replaces an empty variable, and a default may hold variables.
    A variable's own value is taken as it stands.  Raises `ValueError` with a sentence that
    says what to write instead.
    """
    if "$" not in text:
        return text
    unset: list[str] = []
    result = _Expansion(text, env, unset).run()
    if unset:
        names = list(dict.fromkeys(unset))
        many = len(names) > 1
        raise ValueError(
            f"the environment variable{'s' * many} {' and '.join(names)} "
            f"{'are' if many else 'is'} not set; "
            f"set {'them' if many else 'it'}, or give a default: ${{{names[0]}:-value}}"
        )
    return result


class _Expansion:
    """One reading of one value, from left to right."""

    __slots__ = ("_at", "_env", "_text", "_unset")

    def __init__(self, text: str, env: Mapping[str, str], unset: list[str]) -> None:
        self._text = text
        self._env = env
        self._unset = unset
        self._at = 0

    def run(self) -> str:
        return self._until_end(0, wanted=True)

    def _until_end(self, depth: int, *, wanted: bool) -> str:
        """Read on to the end of the value, or of the default at `depth`."""
        parts: list[str] = []
        while self._at < len(self._text):
            character = self._text[self._at]
            if character == "}" and depth:
                return "".join(parts)
            if character == "$":
                parts.append(self._dollar(depth, wanted=wanted))
            else:
                parts.append(character)
                self._at += 1
        if depth:
            raise ValueError("'${' without its '}'; write $$ for a dollar")
        return "".join(parts)

    def _dollar(self, depth: int, *, wanted: bool) -> str:
        following = self._text[self._at + 1 : self._at + 2]
        if following == "$":
            self._at += 2
            return "$"
        if following != "{":
            raise ValueError("a '$' alone means nothing; write ${NAME}, or $$ for a dollar")
        if depth >= _DEEPEST:
            raise ValueError(f"defaults are nested deeper than {_DEEPEST}")
        self._at += 2
        return self._variable(depth, wanted=wanted)

    def _variable(self, depth: int, *, wanted: bool) -> str:
        """Read ``NAME}`` or ``NAME:-default}``; `wanted` is false in a default not taken."""
        name = _NAME.match(self._text, self._at)
        if name is None:
            raise ValueError("'${' needs a variable's name: ${NAME} or ${NAME:-default}")
        self._at = name.end()
        value = self._env.get(name[0])
        if self._text.startswith(":-", self._at):
            self._at += 2
            default = self._until_end(depth + 1, wanted=wanted and not value)
            value = value or default
        elif value is None and wanted:
            self._unset.append(name[0])
        if self._text[self._at : self._at + 1] != "}":
            raise ValueError(
                f"after '${{{name[0]}' there can only be '}}' or ':-default}}'; "
                "write $$ for a dollar"
            )
        self._at += 1
        return value or ""
