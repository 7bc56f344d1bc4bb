"""The checks of a release find what is wrong, and builds of one clone wait for each other."""

from __future__ import annotations

import fcntl
import io
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

from release.contents import NEEDED_OF_SOURCE, NEEDED_OF_WHEEL, faults_of_source, faults_of_wheel
from release.source import absolute_links
from release.versions import faults_of_changelog, faults_of_tag, faults_of_versions
from release.wheel import TARGETS

ROOT = Path(__file__).parent.parent
NAME = "candleshm-0.1.0-cp311-abi3-manylinux2014_x86_64.whl"


def wheel(folder: Path, leave_out: str = "", more: dict[str, bytes] | None = None) -> Path:
    """Write a wheel with everything that is needed, but one thing, and more."""
    path = folder / NAME
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for pattern in NEEDED_OF_WHEEL:
            if pattern != leave_out:
                file.writestr(pattern.replace("*", "0"), b"x")
        for name, data in (more or {}).items():
            file.writestr(name, data)
    return path


def test_a_wheel_with_everything_passes(tmp_path: Path) -> None:
    assert faults_of_wheel(wheel(tmp_path)) == []


@pytest.mark.parametrize("pattern", NEEDED_OF_WHEEL)
def test_a_wheel_that_lacks_something_does_not(pattern: str, tmp_path: Path) -> None:
    (fault,) = faults_of_wheel(wheel(tmp_path, pattern))
    assert fault == f"{pattern} is missing: {NEEDED_OF_WHEEL[pattern]}"


@pytest.mark.parametrize("name", ["candleshm/tests/test_reader.py", "candleshm/data/a.json", "candleshm/core.rs"])
def test_a_wheel_with_what_is_not_for_users_does_not(name: str, tmp_path: Path) -> None:
    (fault,) = faults_of_wheel(wheel(tmp_path, more={name: b"x"}))
    assert name in fault


def test_a_wheel_that_names_its_builder_is_too_large_or_for_one_python_does_not(tmp_path: Path) -> None:
    (fault,) = faults_of_wheel(wheel(tmp_path, more={"candleshm/_core.abi3.so": b"\0/home/ann/.cargo/registry/x.rs"}))
    assert "/home/ann/.cargo/" in fault
    plain = wheel(tmp_path)
    with zipfile.ZipFile(plain, "a", zipfile.ZIP_STORED) as file:
        file.writestr("candleshm/large.py", b"\0" * 7_000_000)
    (fault,) = faults_of_wheel(plain)
    assert "stripped" in fault
    other = tmp_path / NAME.replace("abi3", "cp311")
    wheel(tmp_path).rename(other)
    (fault,) = faults_of_wheel(other)
    assert "stable ABI" in fault


def source(folder: Path, readme: str, *more: str) -> Path:
    """Write a source distribution with a README in its metadata, and more files."""
    path = folder / "candleshm-0.1.0.tar.gz"
    with tarfile.open(path, "w:gz") as file:
        for name in [*NEEDED_OF_SOURCE, *more]:
            data = readme.encode() if name == "PKG-INFO" else b"x"
            member = tarfile.TarInfo(f"candleshm-0.1.0/{name}")
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    return path


def test_a_released_source_distribution_has_no_links_into_the_repository(tmp_path: Path) -> None:
    readme = "[here](docs/api.md), [there](https://docs.python.org), ![picture](docs/images/page.png)"
    path = source(tmp_path, readme)
    assert faults_of_source(path, released=False) == []
    (fault,) = faults_of_source(path, released=True)
    assert fault.startswith("2 links of the README")
    absolute = absolute_links(readme, "https://git.example/a/b", "v1.0.0")
    assert "https://git.example/a/b/blob/v1.0.0/docs/api.md" in absolute
    assert "https://git.example/a/b/raw/v1.0.0/docs/images/page.png" in absolute
    assert faults_of_source(source(tmp_path, absolute), released=True) == []


def test_a_source_distribution_has_no_builds(tmp_path: Path) -> None:
    (fault,) = faults_of_source(source(tmp_path, "", "python/candleshm/_core.abi3.so"), released=False)
    assert "_core.abi3.so" in fault


def test_this_tree_has_one_version_and_news() -> None:
    assert faults_of_versions() == []
    text = (ROOT / "CHANGELOG.md").read_text()
    assert faults_of_changelog(text, "0.1.0", None) == []


def test_a_changelog_without_news_or_without_the_release_is_refused() -> None:
    (fault,) = faults_of_changelog("# Changelog\n\n## [Unreleased]\n\n", "0.1.0", None)
    assert "Unreleased" in fault
    news = "# Changelog\n\n## [Unreleased]\n\n### Added\n\n- A thing.\n"
    assert faults_of_changelog(news, "0.1.0", None) == []
    (fault,) = faults_of_changelog(news, "0.1.0", "v0.1.0")
    assert "## [0.1.0] - YYYY-MM-DD" in fault
    released = "# Changelog\n\n## [Unreleased]\n\n## [0.1.0] - 2026-12-01\n\n- A thing.\n"
    assert faults_of_changelog(released, "0.1.0", "v0.1.0") == []


def test_a_tag_of_another_version_is_refused() -> None:
    faults = faults_of_tag("v99.0.0")
    assert "expected v" in faults[0]
    assert "not at the commit" in faults[1]


def test_only_approved_jobs_of_the_workflow_may_publish_and_every_action_is_pinned() -> None:
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text()
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {}
    may_publish = {name for name, job in workflow["jobs"].items() if "id-token" in job["permissions"]}
    assert (
        may_publish == {name for name, job in workflow["jobs"].items() if "environment" in job} == {"pypi", "crates-io"}
    )
    for name in may_publish:
        job = workflow["jobs"][name]
        assert job["if"] == "github.ref_type == 'tag'"
        assert {"test", "test-musl", "test-free-threaded", "check"} <= set(job["needs"])
    assert "secrets." not in text
    assert all(re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v[\d.]+", uses) for uses in re.findall(r"uses: (.*)", text))
    assert {target for target in TARGETS if f"- {target}\n" in text} == set(TARGETS)


def test_a_build_waits_for_another_one_of_the_same_clone(tmp_path: Path) -> None:
    """With a lock that the system frees when its owner dies."""
    backend = tmp_path / "build_backend" / "native_library.py"
    backend.parent.mkdir()
    backend.write_text((ROOT / "build_backend" / "native_library.py").read_text())
    (tmp_path / "target").mkdir()
    code = "import native_library as n\nwith n.alone(): print('built')"
    words = [sys.executable, "-c", code]
    with (tmp_path / "target" / "candleshm-build.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with subprocess.Popen(
            words, cwd=backend.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as other:
            assert other.stderr is not None
            assert other.stderr.readline() == f"waiting for another build in {tmp_path}\n"
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert other.communicate()[0] == "built\n"
