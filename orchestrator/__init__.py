"""Sweeps of Vita-CLIP on Ray: search, training, benchmarks, records, tracking."""
