"""A cost model of one training step: what each kernel computes and moves, and how long a device
takes for it at best.
"""
