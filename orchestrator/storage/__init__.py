"""The store, and the study's record in it: the only truth.

``stores`` keep values under keys, ``keys`` spells every key, ``records`` says what each file holds.
``study_record`` and ``trial_record`` read; ``attempts``, ``checkpoints``, ``scores`` and
``trial_log`` write.
"""
