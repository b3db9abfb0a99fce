"""Sweeps of Vita-CLIP on Ray: search, training, benchmarks, records, tracking.

The modules here are the doors of the commands (``vitaclip sweep``, ``python -m
orchestrator.sweep``) and what a user writes (``config.py``). What lies behind them is in the
packages: ``commands`` does what was asked for, ``search`` decides, ``execution`` runs on Ray,
``storage`` remembers, ``evaluation`` scores, ``tracking`` tells MLflow, ``display`` shows.
"""
