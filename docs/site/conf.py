"""The documentation as a site: `make docs` writes build/site from the Markdown of this repository."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

ROOT = Path(__file__).parent.parent.parent

project = "candleshm"
author = "the candleshm developers"
copyright = author
release = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]

extensions = ["myst_parser", "sphinx_copybutton"]
# The source directory is the repository, so that links between pages work there as they do in a clone.
include_patterns = ["*.md", "docs/**", "examples/README.md", "benches/README.md", "tests/conformance/README.md"]
# The front page has the README's place.
exclude_patterns = ["README.md"]
root_doc = "docs/site/index"

myst_heading_anchors = 4
# `$` begins a command, which is copied without it.
copybutton_prompt_text = "$ "

html_theme = "furo"
html_title = f"candleshm {release}"
html_extra_path = ["index.html"]
html_static_path = ["site.css"]
html_css_files = ["site.css"]


def setup(app: Sphinx) -> None:
    """Write llms.txt beside the pages: what the site has, for programs that read it (llmstxt.org)."""

    def write(app: Sphinx, error: Exception | None) -> None:
        if error is None:
            env = app.env
            pages = [page for page in _in_order(env.toctree_includes, root_doc) if page in env.titles]
            lines = [f"- [{env.titles[page].astext()}](_sources/{page}.md.txt)" for page in pages]
            head = "# candleshm\n\n> The newest Binance candles of hundreds of symbols in named shared memory.\n\n"
            Path(app.outdir, "llms.txt").write_text(head + "\n".join(lines) + "\n")

    app.connect("build-finished", write)
    app.connect("html-page-context", _keep_flags_whole)


def _keep_flags_whole(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """Mark the flags of commands in the text: browsers break lines behind a hyphen, also behind those of `--flag`."""
    if "body" in context:
        context["body"] = re.sub(r'<span class="pre">(?=[\[(]?-)', '<span class="pre flag">', context["body"])


def _in_order(below: dict[str, list[str]], page: str) -> list[str]:
    """Return a page and all below it, as the sidebar shows them."""
    return [page, *(found for child in below.get(page, ()) for found in _in_order(below, child))]
