"""Everything that must be measured on the day there is a GPU, in one command
(``python -m benchmarks.gpu``).
"""
