"""Many hosts, one truth: what one host's block tells, and what others make of it, over servers of NATS."""
