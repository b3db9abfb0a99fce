"""Weights & Biases as a view of a study's record: group = study, runs = its trials and itself."""
