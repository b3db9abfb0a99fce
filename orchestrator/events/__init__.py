"""What happens to a running study, and who hears of it."""
