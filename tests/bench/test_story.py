"""How many files a reader of one request has to open."""

from __future__ import annotations

from tests.bench.story import follow

MOST_FILES = 14
MOST_CHANGES = 25


async def test_a_warm_request_is_told_in_few_files() -> None:
    story = await follow()

    assert len(story.files) <= MOST_FILES, story.visits
    assert story.changes <= MOST_CHANGES, story.visits
