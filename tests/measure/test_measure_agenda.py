"""What is due next: plans, slots of a closed loop, and what comes up in between, without a clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from setpoint.measure.agenda import Agenda, Departure, check_order
from setpoint.measure.backlog import Flight
from setpoint.measure.exchange import Exchange
from setpoint.record import Phase
from setpoint.workload.plan import LoadPlan, PhaseSpan, PlannedRequest

SPANS = [PhaseSpan(Phase.WARMUP, 0.0, 1.0), PhaseSpan(Phase.SUSTAINED, 1.0, 3.0)]


def planned(index: int, intended_s: float = 0.0, phase: Phase = Phase.WARMUP, follows: int | None = None) -> PlannedRequest:
    return PlannedRequest(index, intended_s, phase, "x", 1, 1, follows=follows)


def plan(requests: list[PlannedRequest], concurrency: int | None = None, spans: list[PhaseSpan] | None = None) -> LoadPlan:
    return LoadPlan(0, SPANS if spans is None else spans, requests, True, concurrency)


def taken(agenda: Agenda) -> list[tuple[float, int]]:
    found = []
    while agenda.next_due_s() is not None:
        departure = agenda.take()
        found.append((departure.due_s, departure.planned.index))
    return found


@given(
    st.lists(st.floats(0, 10), max_size=20).map(sorted),
    st.lists(st.floats(0, 10), max_size=20),
)
def test_everything_departs_once_in_order_of_time(arrivals_s: list[float], later_s: list[float]) -> None:
    agenda = Agenda(plan([planned(index, time_s) for index, time_s in enumerate(arrivals_s)]))
    for number, due_s in enumerate(later_s):
        agenda.add(Departure(due_s, planned(100 + number, due_s)))
    departures = taken(agenda)
    assert [due_s for due_s, _ in departures] == sorted(arrivals_s + later_s)
    assert len({index for _, index in departures}) == len(departures)


def test_open_loop_knows_what_it_did_not_come_to() -> None:
    agenda = Agenda(plan([planned(0, 0.1), planned(1, 0.2), planned(2, 0.2, follows=1)]))
    agenda.take()
    assert [request.index for request in agenda.unsent()] == [1]


def test_closed_loop_sends_when_a_slot_is_free_and_stops_with_the_last_phase() -> None:
    agenda = Agenda(plan([planned(index) for index in range(9)], concurrency=2))
    assert [agenda.take().due_s for _ in range(2)] == [0.0, 0.0]
    assert agenda.next_due_s() is None
    agenda.free(1.5)
    agenda.free(3.0)
    departure = agenda.take()
    assert (departure.planned.intended_s, departure.planned.phase) == (1.5, Phase.SUSTAINED)
    assert agenda.next_due_s() is None  # The other slot became free after the end.
    assert agenda.unsent() == []


def test_closed_loop_by_number_of_requests_sends_all_and_keeps_their_phases() -> None:
    spans = [PhaseSpan(Phase.WARMUP, 0.0, 0.0), PhaseSpan(Phase.SUSTAINED, 0.0, 0.0)]
    agenda = Agenda(plan([planned(0), planned(1, phase=Phase.SUSTAINED)], concurrency=1, spans=spans))
    assert agenda.take().planned.phase is Phase.WARMUP
    agenda.free(500.0)
    last = agenda.take().planned
    assert (last.intended_s, last.phase) == (500.0, Phase.SUSTAINED)


def test_instants_after_the_last_phase_are_not_offered() -> None:
    agenda = Agenda(plan([planned(0)]))
    assert agenda.offers(2.9)
    assert not agenda.offers(3.0)
    assert agenda.phase(planned(0), 2.9) is Phase.SUSTAINED
    assert agenda.phase(planned(0), 0.0) is Phase.WARMUP


def test_slots_are_taken_in_the_order_in_which_they_are_free() -> None:
    agenda = Agenda(plan([planned(index) for index in range(4)], concurrency=2))
    agenda.take()
    agenda.take()
    agenda.free(2.0)  # Its user rests.
    agenda.free(1.5)
    assert [agenda.take().due_s for _ in range(2)] == [1.5, 2.0]


def test_closed_loop_by_time_knows_since_when_it_had_nothing_for_a_free_slot() -> None:
    agenda = Agenda(plan([planned(0), planned(1)], concurrency=2))
    agenda.take()
    agenda.take()
    assert agenda.used_up_s is None
    agenda.free(1.25)
    agenda.free(2.0)
    assert agenda.used_up_s == 1.25
    in_time = Agenda(plan([planned(0)], concurrency=1))
    in_time.take()
    in_time.free(3.0)
    assert in_time.used_up_s is None


def test_shorter_plan_lets_go_of_turns_after_its_end_and_keeps_other_attempts() -> None:
    agenda = Agenda(plan([planned(0)]))
    agenda.take()
    again = Flight(planned(3), Exchange("r", b"", lambda _: None))
    for departure in (
        Departure(2.6, planned(3), flight=again),
        Departure(2.5, planned(2, 2.5)),
        Departure(2.0, planned(4, 2.0)),
        Departure(1.5, planned(1, 1.5)),
    ):
        agenda.add(departure)
    agenda.shorten(plan([planned(0)], spans=[SPANS[0], PhaseSpan(Phase.SUSTAINED, 1.0, 2.0)]))
    assert taken(agenda) == [(1.5, 1), (2.6, 3)]


@pytest.mark.parametrize(
    ("faulty", "words"),
    [
        (plan([planned(0, 1.0), planned(1, 0.5)]), r"request 1 is intended at 0\.5 s, before 1\.0 s"),
        (plan([planned(0), planned(1, follows=2), planned(2)]), "request 1 follows 2, which does not come before it"),
        (plan([planned(0, follows=0)]), "request 0 follows 0"),
        (plan([planned(0)], concurrency=0), "concurrency is 0"),
        (plan([planned(0)], spans=[]), "there are requests and no phase"),
    ],
)
def test_plan_that_cannot_be_sent_is_named(faulty: LoadPlan, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_order(faulty)
