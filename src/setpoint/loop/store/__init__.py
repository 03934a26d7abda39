"""What is known of runs: an index over their folders, trends of a requirement, and calibrations that runs left behind."""
