"""Whole trading programs against the gateway: `make acceptance`, in an environment of their own."""
