"""Ways of scoring a model on a benchmark, a file each: what is different in it, and what an
experiment file says of it.

A new protocol is a file here, and its name in :data:`orchestrator.config.Benchmark`.
"""
