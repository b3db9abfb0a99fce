"""Vita-CLIP (CVPR 2023) as a plain PyTorch library: model, data, training and evaluation, without a
cluster.
"""
