"""`doctor`: examine routes concurrently, and report on them in the order asked for."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import Sequence

from proxy.config.misplaced import shown
from proxy.config.model import Config, Route
from proxy.config.problems import ConfigError, Problem, nearest
from proxy.doctor import running
from proxy.doctor.examination import examine
from proxy.doctor.findings import Report
from proxy.doctor.identity import World, open_world
from proxy.doctor.render import Style, as_json, render, style_for, summary
from proxy.doctor.request import Question

AT_ONCE = 16
"""Routes that are examined at the same time."""

FAILED = 1


def main(
    config: Config, names: Sequence[str], *, method: str, path: str, as_text: bool = True
) -> int:
    """Examine the routes with these names, or all; return the exit code.

    `method` and `path` are what is asked of each.  Raises `ConfigError` for names that no
    route has.
    """
    routes = select(config, names)
    question = Question(method, path)
    style = _style() if as_text else None
    world = open_world(os.environ, config.source)
    one_by_one = [each for route in routes for each in route.each()]
    reports = running.run(_examine(one_by_one, question, world, style))
    if style is None:
        sys.stdout.write(json.dumps(as_json(reports), indent=2) + "\n")
    return 0 if all(report.ok for report in reports) else FAILED


def select(config: Config, names: Sequence[str]) -> list[Route]:
    """Return the routes with these names, each once and in this order, or all of them."""
    routes = {route.name: route for route in config.routes}
    unknown = [
        Problem(
            shown(name), 0, 0, f"no route of {config.source} has this name{nearest(name, routes)}"
        )
        for name in names
        if name not in routes
    ]
    if unknown:
        raise ConfigError(unknown)
    return [routes[name] for name in dict.fromkeys(names)] if names else list(config.routes)


async def _examine(
    routes: Sequence[Route], question: Question, world: World, style: Style | None
) -> list[Report]:
    """Examine routes of one destination; with a `style`, print each report when it is its turn."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(route: Route) -> Report:
        async with gate:
            return await examine(route, world, question)

    # No TaskGroup: it would wrap what printing raises, such as a reader that has gone.
    tasks = [asyncio.ensure_future(one(route)) for route in routes]
    reports: list[Report] = []
    try:
        for task in tasks:
            reports.append(await task)
            if style is not None:
                _print(render(reports[-1], style))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await world.caches.close()
    if style is not None:
        _print(summary(reports, style))
    return reports


def _style() -> Style:
    # https://no-color.org
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    colour = colour and os.environ.get("TERM") != "dumb"
    return style_for(
        shutil.get_terminal_size((100, 24)).columns, sys.stdout.encoding, colour=colour
    )


def _print(text: str) -> None:
    encoding = sys.stdout.encoding or "ascii"
    # A file's name may have letters that the terminal does not.
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()
