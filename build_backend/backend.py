"""The build backend: maturin's, which builds one library per wheel, after libcandleshm was put into the package."""

from __future__ import annotations

from typing import Any

import maturin
from maturin import (
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)
from native_library import IN_PACKAGE, alone, install

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]


def build_wheel(*arguments: Any, **keywords: Any) -> str:
    """Build libcandleshm, and then the wheel."""
    with alone():
        install(IN_PACKAGE, static=False)
        return str(maturin.build_wheel(*arguments, **keywords))


def build_editable(*arguments: Any, **keywords: Any) -> str:
    """Build libcandleshm, and then the wheel that refers to this tree."""
    with alone():
        install(IN_PACKAGE, static=False)
        return str(maturin.build_editable(*arguments, **keywords))
