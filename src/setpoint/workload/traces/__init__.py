"""Traces of real traffic: read from files of several formats, and planned as the load of a run."""

from setpoint.workload.traces.planning import plan_trace
from setpoint.workload.traces.reading import FORMATS, read_trace
from setpoint.workload.traces.trace import Trace, TraceError

__all__ = ["FORMATS", "Trace", "TraceError", "plan_trace", "read_trace"]
