"""History published into a block as if it happened now: stored days in, one moment after the other out."""

from candleshm.replaying.replay import Replay, replay

__all__ = ["Replay", "replay"]
