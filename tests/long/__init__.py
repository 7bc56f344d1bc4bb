"""Proofs that take minutes to hours: `make test-long`, `make soak`, `make stress`."""
