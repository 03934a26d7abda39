"""What a run says: figures, verdicts and the choice, the files of a run, and how they are shown."""
