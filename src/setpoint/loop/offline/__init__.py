"""Offline work: a file of requests becomes a file of answers, resumable at any moment (``setpoint batch``)."""
