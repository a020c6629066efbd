"""Systems that lack what Linux has: the whole program, with such names taken away."""

from __future__ import annotations

from pathlib import Path

from tests.fakes.lifelines import OK, document, living, scripted, status_of
from tests.fakes.program import Program

# What macOS' Python does not have, or refuses.
MACOS = """
import os, resource, select, signal, socket
for module, names in {
    os: "eventfd memfd_create pidfd_open pipe2 sched_getaffinity sched_setaffinity splice",
    select: "epoll",
    signal: "sigtimedwait sigwaitinfo SIGPWR SIGPOLL",
    socket: "MSG_NOSIGNAL SOCK_CLOEXEC SOCK_NONBLOCK SO_DOMAIN SO_PEERCRED SO_PROTOCOL "
            "TCP_DEFER_ACCEPT TCP_KEEPIDLE TCP_QUICKACK TCP_USER_TIMEOUT",
}.items():
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
real, limits = resource.setrlimit, [(256, resource.RLIM_INFINITY)]
def set_limit(which, wanted):
    if not 0 <= wanted[0] <= 10240:
        raise ValueError("current limit exceeds maximum limit")
    limits.append(wanted)
    real(which, (wanted[0], wanted[0]))
resource.getrlimit = lambda which: limits[-1]
resource.setrlimit = set_limit
"""


async def test_it_serves_with_the_names_that_macos_has(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(MACOS)
    async with scripted(OK) as upstream:
        program = Program(document(upstream), env={"PYTHONPATH": str(tmp_path)})
        async with living(program):
            limits = Path(f"/proc/{program.pid}/limits").read_text()
            assert "Max open files            10240 " in limits
            assert await status_of(program.listeners[0], "/") == 200
            await program.terminate()
