"""Views of a study's record in tracking services, kept up while the study runs."""
