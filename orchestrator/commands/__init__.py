"""What the commands do. Their options stand in the files of the same names one folder up."""
