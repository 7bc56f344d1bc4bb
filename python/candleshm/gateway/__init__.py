"""The exchange's own API on this machine, answered from the blocks."""
