"""Makes an interpreter lack what another system does not have; Python runs this file by its name.

``LACKING`` says which system: windows or macos.  What a program finds is then what it would find
there: names that are not defined, modules that cannot be imported, and event loops that take no
signal handlers.  The standard library has been imported before, and keeps what it needs itself.
"""

from __future__ import annotations

import asyncio
import os
import select
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from typing import Any

_IMPORTED = (shutil, subprocess, tempfile)

WINDOWS: dict[Any, str] = {
    os: """
        O_CLOEXEC O_NOFOLLOW O_NONBLOCK O_DIRECTORY WNOHANG chown chroot confstr ctermid fchdir
        fchmod fchown fork forkpty getegid geteuid getgid getgroups getloadavg getpgid getpgrp
        getpriority getuid initgroups killpg lchown lockf mkfifo mknod nice openpty pipe2
        posix_fadvise posix_spawn pread preadv pwrite pwritev readv register_at_fork
        sched_getaffinity sched_setaffinity sched_yield sendfile setegid seteuid setgid
        setgroups setpgid setpriority setsid setuid statvfs sysconf tcgetpgrp uname wait wait3
        wait4 waitid writev""",
    select: "epoll poll",
    signal: """
        SIGALRM SIGBUS SIGCHLD SIGCONT SIGHUP SIGIO SIGKILL SIGPIPE SIGPROF SIGPWR SIGQUIT
        SIGSTOP SIGSYS SIGTRAP SIGTSTP SIGTTIN SIGTTOU SIGURG SIGUSR1 SIGUSR2 SIGVTALRM SIGWINCH
        SIGXCPU SIGXFSZ SIG_BLOCK SIG_SETMASK SIG_UNBLOCK alarm getitimer pause pthread_kill
        pthread_sigmask setitimer siginterrupt sigpending sigtimedwait sigwait sigwaitinfo""",
    socket: """
        AF_NETLINK AF_PACKET AF_UNIX CMSG_LEN CMSG_SPACE MSG_CMSG_CLOEXEC MSG_DONTWAIT MSG_EOR
        MSG_NOSIGNAL SCM_CREDENTIALS SCM_RIGHTS SOCK_CLOEXEC SOCK_NONBLOCK SOCK_SEQPACKET
        SO_PEERCRED SO_REUSEPORT TCP_CORK TCP_DEFER_ACCEPT TCP_INFO TCP_LINGER2 TCP_QUICKACK
        TCP_USER_TIMEOUT recv_fds send_fds""",
    asyncio: "open_unix_connection start_unix_server",
}
MACOS: dict[Any, str] = {
    os: "pipe2 posix_fadvise sched_getaffinity sched_setaffinity",
    select: "epoll",
    signal: "SIGPWR SIGSTKFLT sigtimedwait sigwaitinfo",
    socket: """
        AF_NETLINK AF_PACKET MSG_CMSG_CLOEXEC SCM_CREDENTIALS SOCK_CLOEXEC SOCK_NONBLOCK
        SO_PEERCRED TCP_CORK TCP_DEFER_ACCEPT TCP_KEEPIDLE TCP_LINGER2 TCP_QUICKACK
        TCP_USER_TIMEOUT""",
}
NO_MODULES = {
    "windows": ("fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty", "uvloop"),
    "macos": (),
}


def _take_away(system: str) -> None:
    for module, names in {"windows": WINDOWS, "macos": MACOS}[system].items():
        for name in names.split():
            if hasattr(module, name):
                delattr(module, name)
    modules: dict[str, Any] = sys.modules
    modules.update(dict.fromkeys(NO_MODULES[system]))


def _make_windows_loop() -> None:
    """Have loops refuse what the one for Windows does; they wait with select(2)."""

    def refuse(*_: object, **__: object) -> None:
        raise NotImplementedError

    async def refuse_later(*_: object, **__: object) -> None:
        raise NotImplementedError

    loop: Any = asyncio.SelectorEventLoop
    for name in ("add_reader", "add_writer", "add_signal_handler", "remove_signal_handler"):
        setattr(loop, name, refuse)
    for name in ("create_unix_connection", "create_unix_server"):
        setattr(loop, name, refuse_later)
    waiting: Any = selectors
    waiting.DefaultSelector = selectors.SelectSelector
    # Windows' own is made of two TCP sockets.
    sockets: Any = socket
    unix, make = socket.AF_UNIX, socket.socketpair
    sockets.socketpair = lambda *_: make(unix)


def _lack(system: str) -> None:
    if system == "windows":
        _make_windows_loop()
    _take_away(system)


_lack(os.environ["LACKING"])
