"""``setpoint tune``: forecast, serve, measure, calibrate, and forecast again, until nothing is left to be found."""
