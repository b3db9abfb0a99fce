"""Benchmarks by protocol, their statistics, and the order of trials."""
