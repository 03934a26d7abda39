"""The mean TTFT and TPOT that a prediction of a benchmark states: where there may be a queue, that with the lesser error.

``|stated / true - 1|`` grows without bound where too much is stated and stays below 1 where too little is. Whether requests
wait for a place (the cache is full, or the engine runs no more at once) multiplies a mean TTFT by ten and more, and turns on a
small error of how many places there are. The statement with the least expected error is the median weighted by 1 / true: a
queue is stated only where it is nearly certain. So places are taken ``ROOM`` (in logarithms, about two standard deviations of
what is known of them) above the most probable.

Only predictions of tables use it. Timers, and with them plans and simulations, keep the most probable coefficients.
"""

from __future__ import annotations

from setpoint.hardware.effects import ALL_NAMES, Array
from setpoint.hardware.fit_effects import Rows

ROOM = 1.0
PLACES = tuple(ALL_NAMES.index(name) for name in ("cap", "limit"))


def stated_logs(rows: Rows, logarithms: Array) -> Array:
    """ln TTFT and ln TPOT in seconds, shape (rows, 2); ``logarithms``: of the coefficients' factors, a row each."""
    roomy = logarithms.copy()
    roomy[:, PLACES] += ROOM
    found = rows.predicted(logarithms)
    found[:, 0] = rows.predicted(roomy)[:, 0]
    return found
