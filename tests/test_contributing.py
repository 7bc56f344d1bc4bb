"""The page for contributors and the hooks name verbs and files that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
VERBS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "README.md", "docs/proofs.md"])
def test_every_verb_that_is_named_exists(name: str) -> None:
    text = (ROOT / name).read_text()
    named = set(re.findall(r"(?:^\$ |`)make ([a-z-]+)", text, re.MULTILINE)) - {"install"}
    assert named
    assert named <= VERBS, named - VERBS


@pytest.mark.parametrize("page", sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]), ids=lambda path: path.name)
def test_every_link_inside_the_repository_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("name", [".pre-commit-config.yaml", ".ci/run"])
def test_hooks_and_continuous_integration_call_verbs(name: str) -> None:
    called = re.findall(r"^(?:\s+entry: )?make ([a-z-]+)$", (ROOT / name).read_text(), re.MULTILINE)
    assert called
    assert set(called) <= VERBS
