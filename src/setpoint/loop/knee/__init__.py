"""The knee: the highest offered load that still meets the requirement, found in a few probes."""
