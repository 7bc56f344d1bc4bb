"""Plain tables: cells of text in aligned columns."""

from __future__ import annotations

from collections.abc import Collection, Sequence

__all__ = ["aligned", "decimal_column"]


def aligned(heads: Sequence[str], rows: Sequence[Sequence[str]], *, left: Collection[str] = ()) -> str:
    """Return a table whose columns stand right-aligned under `heads`, those named in `left` left-aligned."""
    widths = [max(len(cell) for cell in column) for column in zip(heads, *rows, strict=True)]
    lines = (
        "  ".join(
            f"{cell:<{width}}" if head in left else f"{cell:>{width}}"
            for head, cell, width in zip(heads, row, widths, strict=True)
        )
        for row in (heads, *rows)
    )
    return "".join(f"{line.rstrip()}\n" for line in lines)


def decimal_column(values: Sequence[float]) -> list[str]:
    """Return the numbers with as many decimals as the longest of them needs, at most 8, the exchange's precision."""
    shortest = [f"{value:.8f}".rstrip("0") for value in values]
    decimals = max((len(text.partition(".")[2]) for text in shortest), default=0)
    return [f"{value:.{decimals}f}" for value in values]
