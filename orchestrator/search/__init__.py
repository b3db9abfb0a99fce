"""What is tried next, what is stopped early, and when a study is over. Knows no Ray."""
