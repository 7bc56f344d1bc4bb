"""Programs that use real clients of the exchange, each run by its client's own environment."""
