"""What the simulated exchange knows: instruments, candles, trades, as a function of seed and time."""
