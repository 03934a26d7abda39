"""OpenAI-compatible HTTP over an engine."""
