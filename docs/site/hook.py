"""Makes the site of the repository's own pages.

They link to one another by their places in the repository, as GitHub shows them.  So every file
enters the site under that place, those beside `docs` too, and none is written twice.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

BESIDE = ("*.md", "LICENSE", "config/**/*", "deploy/**/*")
"""What pages of `docs` link to, besides each other."""

TOUR = "README.md"
"""The page that is first in the repository; docs/README.md is first in the site."""

LINK = re.compile(r"(?<!!)\[([^]]*)\]\((?![a-z]+:|#)([^)#\s]+)\)")

MODULES = HERE / "node_modules"
MERMAID = "assets/javascripts/mermaid.js"
ASSETS = {
    "assets/stylesheets/extra.css": HERE / "extra.css",
    MERMAID: MODULES / "@mermaid-js" / "tiny" / "dist" / "mermaid.tiny.js",
    "assets/javascripts/iframe-worker.js": MODULES / "iframe-worker" / "shim" / "index.js",
}
"""Our style, and what the theme would have browsers fetch elsewhere, by places in the site."""

FOREIGN = re.compile(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=\"?(?:https?:)?//[^\s>]*")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Put each file under its path in the repository; the theme's own stay where they are."""
    docs = Path(config.docs_dir)
    for file in list(files):
        if file.abs_src_path is not None and docs in Path(file.abs_src_path).parents:
            files.remove(file)
            files.append(_at_its_place(Path(file.abs_src_path), config))
    for pattern in BESIDE:
        for path in sorted(ROOT.glob(pattern)):
            if path.is_file():
                files.append(_at_its_place(path, config))
    return files


def _at_its_place(path: Path, config: MkDocsConfig) -> File:
    place = path.relative_to(ROOT).as_posix()
    file = File.generated(config, place, abs_src_path=str(path))
    file.dest_uri = "tour.html" if place == TOUR else file.dest_uri.removeprefix("docs/")
    return file


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let a link to a folder lead to the page that GitHub shows below its list of files.

    Where there is none its text is left: a site has no lists of files.
    """
    del config, files
    here = ROOT / Path(page.file.src_uri).parent

    def led_to_a_page(link: re.Match[str]) -> str:
        text, target = link.groups()
        if not (here / target).is_dir():
            return link[0]
        target = f"{target.rstrip('/')}/README.md"
        return f"[{text}]({target})" if (here / target).exists() else text

    return LINK.sub(led_to_a_page, markdown)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Load what draws diagrams, in pages that have one."""
    del config
    if '<pre class="mermaid">' in output:
        up = "../" * page.file.dest_uri.count("/")
        output = output.replace("</head>", f'<script src="{up}{MERMAID}"></script></head>', 1)
    if foreign := FOREIGN.search(output):
        raise PluginError(f"{page.file.src_uri} would load from another host: {foreign[0]}")
    return output


def on_post_build(config: MkDocsConfig) -> None:
    """Put our style, and the scripts, beside the theme's."""
    for name, source in ASSETS.items():
        place = Path(config.site_dir) / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, place)
