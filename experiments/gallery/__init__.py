"""What the experiments have in common: their description, their checks, how they are run and written down."""
