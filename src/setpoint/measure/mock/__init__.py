"""A mock OpenAI-compatible server with an exactly known schedule: what a load generator is checked and calibrated against.

``with MockProcess(MockOptions(ttft_s=0.05, itl_s=0.01)) as mock:`` serves at ``mock.url`` from a process of its own;
``mock.log()`` is what it really did and when, on the clock of ``time.monotonic``. ``python -m setpoint.measure.mock`` is
the same from a shell. ``server.serve_mock`` runs it on the caller's event loop.
"""

from setpoint.measure.mock.log import Ended, MockLog, MockRequest
from setpoint.measure.mock.options import Behaviour, MockOptions
from setpoint.measure.mock.process import MockProcess

__all__ = ["Behaviour", "Ended", "MockLog", "MockOptions", "MockProcess", "MockRequest"]
