"""Sweeps of Vita-CLIP on Ray: search, training, benchmarks, records, tracking.

The modules here are the commands (``python -m orchestrator.sweep``) and what a user writes
(``config.py``). What they are made of lies in the packages: ``search`` decides, ``execution`` runs
on Ray, ``storage`` remembers, ``evaluation`` scores, ``tracking`` tells MLflow, ``display`` shows.
"""
