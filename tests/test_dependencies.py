"""Everything that candleshm is built from is listed, with a reason and a licence that asks for a notice at most."""

from __future__ import annotations

import json
import re
import tomllib
from urllib.parse import quote

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.dependencies import ALLOWED, ROOT, crates, distributions, is_allowed, page
from tests.licences import compiled_in
from tests.licences import document as licence_texts
from tests.sbom import document


def test_the_page_lists_what_there_is() -> None:
    """Licences of Python packages are compared with the installed ones below; their wording changes with releases."""
    written, now = (text.split("\n## Rust\n") for text in ((ROOT / "docs" / "dependencies.md").read_text(), page()))
    assert written[1] == now[1], "run `make dependencies` and look at what is new"
    names = [
        [line.split(" | ")[:2] for line in half.splitlines() if line.startswith("| ")] for half in (written[0], now[0])
    ]
    assert names[0] == names[1], "run `make dependencies` and look at what is new"


def test_every_licence_is_allowed_and_every_dependency_has_a_reason() -> None:
    for key, (licence, _, why) in crates().items():
        assert is_allowed(licence), (key, licence)
        assert why, key
    for name, (_, licence, _, why) in distributions().items():
        assert is_allowed(licence), (name, licence)
        assert why, name


def test_the_lock_file_pins_every_crate_by_checksum() -> None:
    locked = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    foreign = [package for package in locked if "source" in package]
    assert {(package["name"], package["version"]) for package in foreign} == set(crates())
    assert all(package["checksum"] for package in foreign)
    assert {package["source"] for package in foreign} == {"registry+https://github.com/rust-lang/crates.io-index"}


def test_the_bill_of_materials_names_every_crate_of_the_module_with_its_checksum() -> None:
    """It is valid CycloneDX; Python packages are compared by name, since the words of their licences change."""
    text = (ROOT / "docs" / "sbom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    written, now = json.loads(text), json.loads(document())
    locked = {
        f"pkg:cargo/{package['name']}@{quote(package['version'])}": package["checksum"]
        for package in tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
        if "source" in package
    }
    crates_of = {part["purl"]: part for part in written["components"] if part["purl"].startswith("pkg:cargo/")}
    assert crates_of == {part["purl"]: part for part in now["components"] if part["purl"].startswith("pkg:cargo/")}
    assert {purl: part["hashes"][0]["content"] for purl, part in crates_of.items()}.items() <= locked.items()
    assert sorted(part["purl"] for part in written["components"]) == sorted(part["purl"] for part in now["components"])


def test_the_licences_of_all_that_is_compiled_in_go_along() -> None:
    written = (ROOT / "THIRD-PARTY-LICENCES").read_text()
    assert written == licence_texts(), "run `make dependencies` and look at what is new"
    for name, version in compiled_in():
        assert re.search(rf"^{name} {re.escape(version)} \(", written, re.MULTILINE), name
    # An expression with AND leaves no choice: every text goes along.
    ring = written.split("\nring ")[1].split("-" * 80)[1]
    assert "Apache License" in ring
    assert "Permission to use, copy, modify" in ring


def test_cargo_deny_allows_the_same_licences() -> None:
    assert set(tomllib.loads((ROOT / "deny.toml").read_text())["licenses"]["allow"]) == ALLOWED


def test_the_page_of_commands_lists_every_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    rows = (ROOT / "docs" / "commands.md").read_text().split("| extra | for |")[1].split("\n\n")[0].splitlines()[2:]
    assert sorted(name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])) == sorted(extras)


@pytest.mark.parametrize(
    ("expression", "fits"),
    [
        ("MIT", True),
        ("MIT OR GPL-3.0-only", True),
        ("MIT/Apache-2.0", True),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", True),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("MIT AND GPL-3.0-only", False),
        ("LGPL-2.1-or-later", False),
        ("none", False),
        ("", False),
    ],
)
def test_licences_are_read_as_spdx(expression: str, fits: bool) -> None:  # noqa: FBT001
    assert is_allowed(expression) is fits
