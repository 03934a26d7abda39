"""setpoint: you set the latency, the loop holds it."""

__version__ = "0.1.0"
