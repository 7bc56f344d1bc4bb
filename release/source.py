"""Builds the source distribution: `python -m release.source [--repository URL]` writes dist/candleshm-VERSION.tar.gz.

It is made from the files that git knows. On PyPI the README stands alone, so its links into the repository become
absolute there, and the project's links are filled in; both need the repository's URL.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from build_backend.native_library import ROOT, version

__all__ = ["DIST", "absolute_links", "main", "repository_url"]

DIST = ROOT / "dist"
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#)([^)\s]+)\)")


def repository_url() -> str | None:
    """Return the web address of the remote `origin`, without credentials; None where there is none."""
    words = ["git", "remote", "get-url", "origin"]
    found = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    match = re.fullmatch(r"(?:https://(?:[^@/]*@)?|git@)([^:/]+)[:/](.+?)(?:\.git)?/?", found.stdout.strip())
    return f"https://{match[1]}/{match[2]}" if match else None


def absolute_links(text: str, repository: str, tag: str) -> str:
    """Return a README whose links and pictures of the repository are absolute, those of the release's tag."""

    def absolute(match: re.Match[str]) -> str:
        picture, words, target = match.groups()
        return f"{picture}[{words}]({repository}/{'raw' if picture else 'blob'}/{tag}/{target})"

    return LINK.sub(absolute, text)


def _with_links(text: str, repository: str, tag: str) -> str:
    """Return pyproject.toml with the project's links."""
    links = {
        "Repository": repository,
        "Documentation": f"{repository}/tree/{tag}/docs",
        "Changelog": f"{repository}/blob/{tag}/CHANGELOG.md",
        "Issues": f"{repository}/issues",
    }
    lines = "".join(f'{name} = "{link}"\n' for name, link in links.items())
    return text.replace("[project.scripts]\n", f"[project.urls]\n{lines}\n[project.scripts]\n", 1)


def _stage(folder: Path, repository: str | None) -> None:
    """Copy what git knows of this tree, as it is now, and make the README stand alone."""
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        source = ROOT / name
        if source.is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, folder / name)
    if repository:
        tag = f"v{version()}"
        for name, change in (("README.md", absolute_links), ("pyproject.toml", _with_links)):
            path = folder / name
            path.write_text(change(path.read_text("utf-8"), repository, tag), "utf-8")


def main() -> None:
    """Build the source distribution into dist/."""
    parser = argparse.ArgumentParser(description="Build the source distribution.")
    parser.add_argument("--repository", default=None, help="https://HOST/OWNER/NAME; default: the remote origin's")
    repository = parser.parse_args().repository or repository_url()
    with tempfile.TemporaryDirectory() as name:
        _stage(Path(name), repository)
        words = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", str(DIST), name]
        result = subprocess.run(words, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"the source distribution was not built:\n{result.stdout}{result.stderr}")
    print(DIST / f"candleshm-{version()}.tar.gz")


if __name__ == "__main__":
    main()
