"""The nearest known word to a mistyped one."""

from __future__ import annotations

from collections.abc import Iterable

_LONGEST = 64  # difflib's cost grows with the square; no key comes near.


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?``, or nothing where no word is near."""
    from difflib import get_close_matches  # noqa: PLC0415 (only a mistake needs it)

    spelled = word[:_LONGEST].lower().replace("-", "_")
    words = {each.lower().replace("-", "_"): each for each in known}
    found = get_close_matches(spelled, words, n=1)
    return f"; did you mean '{words[found[0]]}'?" if found else ""
