"""Mutations of what the README promises: the tests must catch each of them."""
