"""The site of all pages: complete, with four kinds of pages, and readable on a narrow screen."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.browser import NARROW, browsing

ROOT = Path(__file__).parent.parent
KINDS = ["Tutorials", "How to", "Reference", "Explanation"]
# What is wider than the screen, and does not scroll by itself; what is broken inside a flag.
WIDE = """
return [...document.querySelectorAll('article *')].filter(each => each.getBoundingClientRect().right > innerWidth + 2
  && !each.closest('pre, .highlight, .table-wrapper')).map(each => each.outerHTML.slice(0, 80))
"""
BROKEN = """
return [...document.querySelectorAll('article code .pre')].filter(each => /^[\\[(]?--/.test(each.textContent)
  && each.getClientRects().length > 1).map(each => each.textContent)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site; a warning, such as a page in no list or a broken link, is an error."""
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "-b", "html", "-c", "docs/site"]
    environment = os.environ | {"PYTHONWARNINGS": "default"}
    result = subprocess.run(
        [*words, ".", str(folder)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return folder


def test_the_pages_are_of_four_kinds_and_programs_find_them(site: Path) -> None:
    front = (site / "docs" / "site" / "index.html").read_text()
    assert re.findall(r'class="caption"[^>]*><span class="caption-text">([^<]+)<', front)[:4] == KINDS
    listed = re.findall(r"\]\((_sources/[^)]+)\)", (site / "llms.txt").read_text())
    assert len(listed) > 50
    assert all((site / path).is_file() for path in listed)


def test_nothing_is_wider_than_a_narrow_screen_and_no_flag_is_broken(site: Path) -> None:
    width, height = NARROW
    found = {}
    with browsing() as page:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": True}
        page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        for path in sorted(site.rglob("*.html")):
            if not path.name.startswith(("search", "genindex")) and path.parent != site / "_static":
                page.driver.get(path.as_uri())
                faults = [*page.run(WIDE), *page.run(BROKEN)]
                if page.run("return document.documentElement.scrollWidth") > width:
                    faults.append("the page itself")
                if faults:
                    found[path.relative_to(site).as_posix()] = faults
    assert found == {}
