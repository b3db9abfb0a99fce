"""Real servers, each started for the time of a test."""
