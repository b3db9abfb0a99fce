"""How soon a search is done and what it finds, against Ray Tune, Optuna and Syne Tune:
``python -m benchmarks.search``.
"""
