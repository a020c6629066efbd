"""Freed memory stays with the process, where the C library can be told so."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys

import pytest

from proxy.memory import keep_freed_memory

# Two blocks of the size of a segment, again and again, as for an upload under TLS.  The pages of
# both are counted by the kernel (getrusage(2), ru_minflt) where they have to be handed out anew.
FAULTS = """
import resource, sys
from proxy.memory import keep_freed_memory
if "keep" in sys.argv:
    assert keep_freed_memory()
def use():
    first, second = bytearray(300_000), bytearray(300_000)
    return first[-1] + second[-1]
for _ in range(20):
    use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(200):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*flags: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, *flags],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_what_a_segment_needed_is_not_asked_for_again() -> None:
    assert faults("keep") < 200
    assert faults() > 2_000  # 146 pages each time: what it would be.


def test_a_c_library_without_it_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: object())
    assert not keep_freed_memory()
