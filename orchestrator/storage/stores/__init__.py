"""Where records and checkpoints live: a local folder, or S3-compatible storage."""
