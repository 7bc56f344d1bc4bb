"""The bill of materials: ``make dependencies`` writes docs/sbom.cdx.json, in CycloneDX, and a test compares.

It says what a wheel brings (the crates that are compiled into it, with their checksums) and what it asks for (Python
packages, with the bounds that pyproject.toml sets).
"""

from __future__ import annotations

import json
import sys
import tomllib
from importlib.metadata import version

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

from tests.dependencies import ROOT, crates, distributions

__all__ = ["document"]

LICENCES = LicenseFactory()


def document() -> str:
    """Return docs/sbom.cdx.json: the same text for the same dependencies."""
    project = Component(
        type=ComponentType.LIBRARY,
        name="candleshm",
        version=version("candleshm"),
        bom_ref="candleshm",
        licenses=[LICENCES.make_from_string("MIT")],
        purl=PackageURL("pypi", name="candleshm", version=version("candleshm")),
    )
    parts = [*_compiled_in(), *_asked_for()]
    bom = Bom(components=parts)
    bom.metadata.component = project
    bom.register_dependency(project, parts)
    written = json.loads(make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string())
    # What differs from one run to the next says nothing about the parts.
    del written["serialNumber"], written["metadata"]["timestamp"]
    return json.dumps(written, indent=1) + "\n"


def _compiled_in() -> list[Component]:
    locked = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    checksums = {(package["name"], package["version"]): package.get("checksum") for package in locked}
    return [
        Component(
            type=ComponentType.LIBRARY,
            name=name,
            version=release,
            bom_ref=f"cargo:{name}@{release}",
            scope=ComponentScope.REQUIRED,
            licenses=[LICENCES.make_from_string(licence.replace("/", " OR "))],
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=checksums[name, release])],
            purl=PackageURL("cargo", name=name, version=release),
        )
        for (name, release), (licence, used, _) in sorted(crates().items())
        if used == "module"
    ]


def _asked_for() -> list[Component]:
    return [
        Component(
            type=ComponentType.LIBRARY,
            name=name,
            bom_ref=f"pypi:{name}",
            scope=ComponentScope.REQUIRED if used == "always" else ComponentScope.OPTIONAL,
            licenses=[LICENCES.make_from_string(licence)],
            properties=[Property(name="candleshm:bound", value=bound), Property(name="candleshm:used", value=used)],
            purl=PackageURL("pypi", name=name),
        )
        for name, (bound, licence, used, _) in distributions().items()
        if not used.endswith("only")
    ]


if __name__ == "__main__":
    sys.stdout.write(document())
