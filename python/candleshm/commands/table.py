"""Plain tables: cells of text in aligned columns."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Collection, Sequence

__all__ = ["aligned", "columns_of_stdout", "decimal_column", "fitted"]

BETWEEN = "  "
# A column that has to become narrower keeps so many characters.
NARROW_MIN = 12
# Remarks that stand below their row are indented, and not divided into lines narrower than this.
INDENT, REMARK_MIN = "    ", 40


def aligned(heads: Sequence[str], rows: Sequence[Sequence[str]], *, left: Collection[str] = ()) -> str:
    """Return a table whose columns stand right-aligned under `heads`, those named in `left` left-aligned."""
    return "".join(f"{line}\n" for line in _lines(heads, rows, left))


def fitted(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    left: Collection[str] = (),
    width: int | None,
    first_to_go: Sequence[str] = (),
    narrowed: str | None = None,
) -> list[list[str]]:
    """Return the lines of a table that is at most `width` wide: those of the heads first, then those of each row.

    The last column has remarks. While the others are too wide, those in `first_to_go` leave in that order; then the
    cells of the column `narrowed` lose their middle. Remarks that do not fit beside their rows stand below them, so
    that nothing of them is lost. Without a width everything stays, one line for each row.
    """
    if width is None:
        return [[line] for line in _lines(heads, rows, left)]
    kept = [place for place, _ in enumerate(heads[:-1])]
    sizes = [max(len(cell) for cell in column) for column in zip(heads, *rows, strict=True)]
    going = list(first_to_go)
    while going and _width(kept, sizes) > width:
        gone = going.pop(0)
        kept = [place for place in kept if heads[place] != gone]
    shown = [[row[place] for place in kept] for row in rows]
    if narrowed in heads and (too_wide := _width(kept, sizes) - width) > 0:
        place = heads.index(narrowed)
        size = max(NARROW_MIN, sizes[place] - too_wide)
        column = kept.index(place)
        shown = [[*cells[:column], _without_middle(cells[column], size), *cells[column + 1 :]] for cells in shown]
    remarks = [row[-1] for row in rows]
    kept_heads = [heads[place] for place in kept]
    if not any(remarks):
        return [[line] for line in _lines(kept_heads, shown, left)]
    if _width([*kept, len(heads) - 1], sizes) <= width:
        beside = [[*cells, remark] for cells, remark in zip(shown, remarks, strict=True)]
        return [[line] for line in _lines([*kept_heads, heads[-1]], beside, left)]
    head, *lines = _lines(kept_heads, shown, left)
    return [[head], *([line, *_below(remark, width)] for line, remark in zip(lines, remarks, strict=True))]


def columns_of_stdout() -> int | None:
    """Return how wide a line on stdout may be; None where it is no terminal, and any line fits."""
    is_terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    return shutil.get_terminal_size().columns if is_terminal else None


def decimal_column(values: Sequence[float]) -> list[str]:
    """Return the numbers with as many decimals as the longest of them needs, at most 8, the exchange's precision."""
    shortest = [f"{value:.8f}".rstrip("0") for value in values]
    decimals = max((len(text.partition(".")[2]) for text in shortest), default=0)
    return [f"{value:.{decimals}f}" for value in values]


def _lines(heads: Sequence[str], rows: Sequence[Sequence[str]], left: Collection[str]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(heads, *rows, strict=True)]
    return [
        BETWEEN.join(
            f"{cell:<{width}}" if head in left else f"{cell:>{width}}"
            for head, cell, width in zip(heads, row, widths, strict=True)
        ).rstrip()
        for row in (heads, *rows)
    ]


def _width(places: Sequence[int], sizes: Sequence[int]) -> int:
    return sum(sizes[place] for place in places) + len(BETWEEN) * (len(places) - 1)


def _without_middle(text: str, size: int) -> str:
    """Return a text of at most `size` characters: its beginning and its end, which tell names apart."""
    if len(text) <= size:
        return text
    end = (size - 1) // 2
    return f"{text[: size - 1 - end]}…{text[-end:]}"


def _below(remark: str, width: int) -> list[str]:
    return textwrap.wrap(
        remark,
        max(width, REMARK_MIN),
        initial_indent=INDENT,
        subsequent_indent=INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )
