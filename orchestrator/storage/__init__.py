"""The store, and the study's record in it: the only truth."""
