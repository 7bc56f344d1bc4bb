"""Moments as callers have them (numbers, datetimes, the index of a frame), as epoch milliseconds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from candleshm.errors import ConfigError

__all__ = ["MomentLike", "MomentsLike", "moment_of", "moments_of"]

MomentLike: TypeAlias = int | np.integer | datetime | np.datetime64
"""One moment: whole epoch ms, a datetime with a time zone, or datetime64 in UTC."""
MomentsLike: TypeAlias = npt.ArrayLike | datetime | Sequence[datetime]
"""One moment or many: whole epoch ms, datetimes with a time zone, datetime64 in UTC, also as a column of a frame."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)
ALLOWED = "allowed: epoch milliseconds (int64), datetimes with a time zone, datetime64 (UTC)"


def moments_of(moments: MomentsLike) -> npt.NDArray[np.int64]:
    """Return moments as a contiguous array of epoch ms, int64 (m,): one moment is (1,). Parts of a millisecond are cut.

    Raises ConfigError for what is no moment, or leaves open which: floats, datetimes without a time zone, NaT.

    >>> moments_of([datetime(2026, 11, 28, 12, tzinfo=UTC)]).tolist()
    [1795867200000]
    """
    # pandas gives times with a zone, as datetime64[ns, UTC], as objects unless it is told the type.
    has_zone = re.fullmatch(r"datetime64\[.*,.*\]", str(getattr(moments, "dtype", ""))) is not None
    found = np.atleast_1d(np.asarray(moments, dtype="datetime64[ms]" if has_zone else None))
    if found.ndim != 1:
        raise ConfigError(f"moments_ms cannot be of shape `{found.shape}`; allowed: one axis")
    if found.size == 0:
        return np.empty(0, np.int64)
    if found.dtype.kind == "O":
        return np.array([_ms_of(moment) for moment in found.tolist()], np.int64)
    if found.dtype.kind == "M":
        if np.isnat(found).any():
            raise ConfigError(f"moments_ms cannot have a missing time (NaT); {ALLOWED}")
        return found.astype("datetime64[ms]").astype(np.int64)
    if found.dtype.kind in "iu":
        return np.ascontiguousarray(found, np.int64)
    raise ConfigError(
        f"moments_ms cannot be {found.dtype}; {ALLOWED}; the times of rows are rows[:, 0].astype('int64')"
    )


def moment_of(moment: MomentLike) -> int:
    """Return one moment as epoch ms. Raises ConfigError for what is no moment, or is several.

    >>> moment_of(datetime(2026, 11, 28, 12, tzinfo=UTC))
    1795867200000
    """
    if isinstance(moment, Sequence | np.ndarray) and not isinstance(moment, str):
        raise ConfigError(f"one moment is needed, not {type(moment).__name__} `{moment}`; {ALLOWED}")
    return int(moments_of(moment)[0])


def _ms_of(moment: object) -> int:
    if not isinstance(moment, datetime):
        raise ConfigError(f"moments_ms cannot be {type(moment).__name__} `{moment}`; {ALLOWED}")
    if moment.tzinfo is None:
        raise ConfigError(f"moments_ms cannot be a datetime without a time zone, `{moment}`; {ALLOWED}")
    return int((moment - EPOCH) // MILLISECOND)
