"""The files of the page."""

from __future__ import annotations

import re

from proxy.ops.admin import read_page


def test_a_file_comes_with_its_type() -> None:
    found = read_page("index.html")

    assert found is not None
    assert found[1] == "text/html; charset=utf-8"


def test_only_the_pages_own_files_can_be_read() -> None:
    assert [read_page(name) for name in ("", "../admin.py", "admin.py", "other.html")] == [None] * 4


def test_the_page_asks_nobody_else_and_has_nothing_inline() -> None:
    found = read_page("index.html")

    assert found is not None
    html = found[0].decode()
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", html)
    assert not re.search(r"<style|style\s*=|\son\w+\s*=|<script(?![^>]*\ssrc=)", html)
