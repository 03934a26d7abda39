"""The live view: an account for every request, figures of the last minutes, and what the dashboard reads."""
