"""What strategies import: feeds, panels, waits, health, data frames, candles derived in memory."""
