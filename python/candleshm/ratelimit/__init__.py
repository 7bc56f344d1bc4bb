"""The request weight that all processes of a user share: the budget, its ledger file, and its pools."""
