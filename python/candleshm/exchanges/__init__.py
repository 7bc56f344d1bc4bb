"""What each exchange expects and returns: URLs, weights, limits, error codes. No network, no clock."""
