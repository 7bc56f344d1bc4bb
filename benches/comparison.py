"""A run beside the committed one: what became worse against its peers by more than noise.

Times of two runs are not comparable, ratios within a run are, on a machine that does nothing else. `NOISE` is generous
on purpose: what is said is worth a look with the whole bench.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

NOISE = 1.5


def worse(found: list[dict[str, Any]], committed: list[dict[str, Any]]) -> Iterator[str]:
    """Yield a line for each peer against which ours lost more than noise."""
    before = {(table["title"], row["name"]): row["ratio"] for table in committed for row in table["rows"]}
    for table in found:
        for row in table["rows"]:
            was = before.get((table["title"], row["name"]))
            if was and row["name"] != table["base"] and was / row["ratio"] > NOISE:
                yield (
                    f"{table['title']}: against {row['name']}, {table['base']} took {1 / was:.3g}x, "
                    f"now it takes {1 / row['ratio']:.3g}x"
                )
