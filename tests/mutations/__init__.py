"""Mutations of what the README promises; ``python -m tests.mutations`` shows that the tests catch
each of them.
"""
