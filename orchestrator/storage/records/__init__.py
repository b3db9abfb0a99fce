"""What each JSON file of a study's record holds, as typed values."""
