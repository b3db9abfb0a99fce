"""A running study for those who watch a cluster."""
