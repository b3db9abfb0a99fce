"""The Vita-CLIP model: a frozen CLIP (``backbone``), its two towers with prompts, and both
together.
"""
