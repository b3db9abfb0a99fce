"""Damaged files against everything that reads them; ``python -m tests.drivers.fuzz`` runs it."""
