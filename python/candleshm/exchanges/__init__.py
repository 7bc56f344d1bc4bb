"""What each exchange expects and answers: addresses, weights, limits, error codes. No network, no clock."""
