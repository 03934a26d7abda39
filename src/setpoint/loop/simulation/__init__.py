"""``setpoint simulate``: from options to a report, by way of ``setpoint.simulate``."""
