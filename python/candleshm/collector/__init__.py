"""One collector: what to request and when, what the responses prove, and what its block shows."""
