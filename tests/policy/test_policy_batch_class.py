"""What batch requests may take beside interactive ones: less, the more work these bring."""

from __future__ import annotations

from dataclasses import replace

from policy_views import NOW_S, Row, line, view

from setpoint.policy.batch_class import WORK_S, LeftOver
from setpoint.policy.forecast import Machine
from setpoint.policy.lengths import OutputLengths
from setpoint.policy.views import BATCH, RequestLimits, RequestView

GAP_S = 0.06
MACHINE = Machine(base_s=0.006, token_s=3e-4, sequence_s=5e-4, allowed_s=0.045, floor_tokens=16, budget_tokens=512)
ASKING = RequestView(1, NOW_S, NOW_S, 100, 100, 40, limits=RequestLimits(ttft_s=0.5, itl_s=GAP_S))


def joins(*, busy: float, running: int = 4, since_s: float = 0.0, seconds: int = 60) -> int:
    """Batch requests that may join where interactive ones have brought ``busy`` machine seconds a second for ``seconds``."""
    left = LeftOver()
    for number in range(10 * seconds):
        asked_s = NOW_S - seconds + 0.1 * number
        left.asked(replace(ASKING, request_id=number, arrived_s=asked_s), asked_s, output_tokens=40, work_s=0.1 * busy)
    now_s = NOW_S + since_s
    readers = [Row(number, NOW_S - 1, now_s + GAP_S, context=60, emitted=5, gap_s=GAP_S) for number in range(running)]
    waiting = [Row(100 + number, NOW_S, prefill=20, request_class=BATCH) for number in range(40)]
    step = view(waiting, readers, now_s=now_s)
    left.see(step, OutputLengths(), line(0.006, 3e-4, 5e-4))
    return left.most_joins(step, MACHINE, max_running=64)


def test_the_more_work_interactive_requests_bring_the_fewer_batch_requests_join() -> None:
    """Seen: at 0.6 of the knee batch requests took half of each step, and half of the interactive ones were late or refused."""
    found = [joins(busy=busy) for busy in (0.0, 0.2, 0.4, 0.6, 0.9)]
    assert found == sorted(found, reverse=True)
    assert found[0] > 2 * found[3]
    assert found[0] > 20
    assert found[4] == 0


def test_beside_nobody_one_joins_however_much_work_there_was() -> None:
    assert joins(busy=0.9, running=0) == 1


def test_work_of_long_ago_counts_less() -> None:
    assert joins(busy=0.7) == 0
    assert joins(busy=0.7, since_s=WORK_S / 2) > 0


def test_work_is_known_from_its_first_seconds_on() -> None:
    """Seen: for the first half minute of a load batch requests joined as if half of it came."""
    assert joins(busy=0.6, seconds=5) == joins(busy=0.6, seconds=60)
