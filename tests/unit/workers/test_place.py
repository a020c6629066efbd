"""How long a worker that dies has to wait for its successor."""

from __future__ import annotations

import pytest

from proxy.workers.place import LONGEST_PAUSE, STEADY, Pauses, _how


def after(*lives: float) -> list[float]:
    """The pauses after these lives, one after the other."""
    pauses = Pauses()
    return [pauses.after(lived) for lived in lives]


def test_the_first_death_is_followed_at_once() -> None:
    assert after(0.0) == [0.0]


def test_early_deaths_in_a_row_double_the_pause_up_to_the_longest() -> None:
    early = STEADY - 0.001

    assert after(*[early] * 10) == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert after(*[early] * 5000)[-1] == LONGEST_PAUSE


def test_a_long_life_makes_up_for_early_deaths() -> None:
    assert after(0, 0, 0, STEADY, 0, 0) == [0.0, 0.5, 1.0, 0.0, 0.0, 0.5]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (0, "ended with exit code 0"),
        (70, "ended with exit code 70"),
        (-9, "was ended by SIGKILL"),
        (-11, "was ended by SIGSEGV"),
        (-40, "was ended by signal 40"),
    ],
)
def test_an_end_is_put_in_words(code: int, said: str) -> None:
    assert _how(code) == said
