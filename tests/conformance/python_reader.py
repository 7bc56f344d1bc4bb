"""What `candleshm.attach` reads from a block, as the JSON of `cases`: the keys that its API tells."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import candleshm

__all__ = ["read"]


def read(name: str) -> dict[str, Any]:
    """Read the block of that name in every way there is."""
    try:
        feed = candleshm.attach(name)
    except candleshm.BlockNotFound:
        return {"open": "not_found"}
    except candleshm.BlockIncompatible:
        return {"open": "incompatible"}
    except candleshm.BlockCorrupt:
        return {"open": "corrupt"}
    with feed:
        health = feed.health
        banned = health.banned_until
        return {
            "open": "ok",
            # Nobody owns a recorded block, and the API tells that of a ready one.
            "state": "ready" if health.state == "dead" else health.state,
            "market": health.market,
            "price": health.price,
            "interval": health.interval,
            "exchange": health.exchange,
            "length": health.length,
            "ready": int(health.loaded),
            "missing": health.missing,
            "holes": health.holes,
            "weight_used": health.weight_used,
            "weight_limit": health.weight_limit,
            "banned_until_ms": 0 if banned is None else round(banned.timestamp() * 1000),
            "collector": "in the future" if math.isinf(health.heartbeat_age) else "alive once",
            "series": [_series(feed[symbol]) for symbol in feed.symbols],
        }


def _series(series: candleshm.Series) -> dict[str, Any]:
    newest = series.live
    view = series.view()
    rows = np.array(view.array)
    valid = view.valid()
    return {
        "symbol": series.symbol,
        "last_close": series.last_close,
        "age": "none" if math.isinf(series.age) else "known",
        "revision": series.revision,
        "newest": {"row": None if np.isnan(newest).all() else newest.tolist()},
        "candles": _slots(*series.snapshot(holes="nan")),
        "closed_only": _slots(*series.snapshot(holes="nan", closed_only=True)),
        "view": {
            "count": len(view),
            "complete": view.complete,
            "valid": valid,
            "rows": [None if math.isnan(row[0]) else row.tolist() for row in rows] if valid else None,
        },
        "gap_times_ms": [[gap.start_ms, gap.end_ms, int(gap.kind == "hole")] for gap in series.gaps()],
    }


def _slots(rows: Any, states: Any) -> dict[str, Any]:
    return {
        "open_times_ms": rows[:, 0].tolist(),
        "states": states.tolist(),
        "rows": [row.tolist() if state <= 3 else None for row, state in zip(rows, states, strict=True)],
    }
