"""Damaged files against everything that reads them; ``python -m tests.fuzz`` runs it."""
