"""Measurement: an open-loop load on any OpenAI-compatible server, recorded as rows; no verdicts are made here.

Start with ``probe.discover`` (is the target there, which model), then ``client.run_load``, and ask ``result.validity``
whether the client itself can be believed. ``event_loop.run`` runs them on uvloop where it is installed.
"""
