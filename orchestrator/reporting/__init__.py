"""A study as one page: what is read of its record, figures, pictures, and the page."""
