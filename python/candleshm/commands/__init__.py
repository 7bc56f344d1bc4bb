"""What the commands of `candleshm.cli` do."""
