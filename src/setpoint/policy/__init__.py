"""Decisions without side effects: the same policy objects run in the engine, the simulator, vLLM and the gateway."""
