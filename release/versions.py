"""Whether a version, the changelog and a tag belong together."""

from __future__ import annotations

import re
import subprocess
import tomllib

from build_backend.native_library import ROOT, version

__all__ = ["faults_of_changelog", "faults_of_tag", "faults_of_versions"]


def faults_of_versions() -> list[str]:
    """Return where another version stands than the one of the workspace in Cargo.toml."""
    faults = []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    if "version" in project or "version" not in project["dynamic"]:
        faults.append(
            "pyproject.toml: has a version of its own; leave it dynamic, and maturin takes that of Cargo.toml"
        )
    members = sorted(path for path in (ROOT / "rust").glob("candleshm*/Cargo.toml"))
    for path in members:
        if tomllib.loads(path.read_text("utf-8"))["package"]["version"] != {"workspace": True}:
            faults.append(f"{path.relative_to(ROOT)}: has a version of its own; write `version.workspace = true`")
    names = {path.parent.name for path in members}
    for package in tomllib.loads((ROOT / "Cargo.lock").read_text("utf-8"))["package"]:
        if package["name"] in names and package["version"] != version():
            faults.append(f"Cargo.lock: {package['name']} is {package['version']}; run `cargo update --workspace`")
    return faults


def faults_of_changelog(text: str, number: str, tag: str | None) -> list[str]:
    """Return what the changelog lacks: news, and for a tag a section with the version and its day."""
    sections = dict(re.findall(r"^## \[?([^\]\s]+)\]?[^\n]*\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    dated = re.search(rf"^## \[{re.escape(number)}\] - \d{{4}}-\d{{2}}-\d{{2}}$", text, re.MULTILINE)
    if tag and not dated:
        return [f"CHANGELOG.md: needs a line `## [{number}] - YYYY-MM-DD`, and its lines of `## [Unreleased]` below it"]
    section = number if dated else "Unreleased"
    if not sections.get(section, "").strip():
        return [f"CHANGELOG.md: `## [{section}]` is not there, or empty"]
    return []


def faults_of_tag(tag: str) -> list[str]:
    """Return why a tag is not the release of this tree."""
    faults = []
    if tag != f"v{version()}":
        faults.append(f"the tag is {tag}, and Cargo.toml says {version()}: expected v{version()}")
    commits = [
        subprocess.run(["git", "rev-parse", name], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
        for name in (f"refs/tags/{tag}^{{commit}}", "HEAD")
    ]
    if commits[0] != commits[1]:
        faults.append(f"the tag {tag} is not at the commit that is checked out: `git tag {tag}`")
    words = ["git", "status", "--porcelain", "--untracked-files=no"]
    if subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout:
        faults.append("files differ from the commit: commit them, or `git stash`")
    return faults
