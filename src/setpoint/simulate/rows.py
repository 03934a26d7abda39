"""Requests as rows of numbers in order of arrival: what policies are shown, without a loop over requests.

Rows stand in one window of a larger array; one that leaves makes the shorter side of the window move up, so a queue is left and
joined in constant time however long it is.
"""

from __future__ import annotations

import numpy as np

from setpoint.policy.deadlines import next_deadlines_s
from setpoint.policy.views import NO_COLUMNS, Columns, FloatColumn, IntColumn
from setpoint.simulate.sequences import SimulatedSequence

ID, CONTEXT, PREFILL, EMITTED, DUE, KIND, CAP, TENANT, TARGET, DECODES, HELD = range(11)
WHOLE = 11
ARRIVED, GAP, STATIC, END, ITL, TPOT, FIRST = range(7)
ROOM = 64


class Rows:
    """Shapes: ``whole`` (11, room) and ``real`` (7, room), rows in columns ``start`` to ``stop``.

    ``Columns`` made of it are views: they show what is there until a row changes.
    """

    def __init__(self) -> None:
        self._whole = np.zeros((WHOLE, ROOM), dtype=np.int64)
        self._real = np.zeros((7, ROOM), dtype=np.float64)
        self._start = self._stop = 0

    def __len__(self) -> int:
        return self._stop - self._start

    def whole(self, name: int) -> IntColumn:
        """One column of whole numbers, shape (rows,), writable."""
        return self._whole[name, self._start : self._stop]

    def real(self, name: int) -> FloatColumn:
        """One column of real numbers, shape (rows,), writable."""
        return self._real[name, self._start : self._stop]

    def place(self, sequence_id: int) -> int:
        """Where the request stands, from 0. It must be there."""
        return int(self.whole(ID).searchsorted(sequence_id))

    def add(self, sequence: SimulatedSequence, *, prefill_tokens: int, computed: int, emitted: int) -> int:
        """A row for a request that does not decode, where its order of arrival puts it; gives its place."""
        if self._stop == self._whole.shape[1]:
            self._make_room()
        at = self._stop
        if len(self) and self._whole[ID, at - 1] > sequence.sequence_id:
            at = self._start + self.place(sequence.sequence_id)
            if self._start and at - self._start < self._stop - at:
                first, at = self._start, at - 1
                self._whole[:, first - 1 : at] = self._whole[:, first : at + 1]
                self._real[:, first - 1 : at] = self._real[:, first : at + 1]
                self._start -= 1
            else:
                self._whole[:, at + 1 : self._stop + 1] = self._whole[:, at : self._stop]
                self._real[:, at + 1 : self._stop + 1] = self._real[:, at : self._stop]
                self._stop += 1
        else:
            self._stop += 1
        request = sequence.request
        due = 1 if request.streaming else max(1, sequence.max_tokens - emitted)
        self._whole[:, at] = (
            sequence.sequence_id,
            computed,
            prefill_tokens,
            emitted,
            due,
            request.request_class,
            sequence.max_tokens,
            sequence.tenant,
            sequence.target_tokens,
            0,
            0,
        )
        static_s = sequence.deadline_s
        self._real[:, at] = (sequence.arrived_s, sequence.gap_s, static_s, static_s, np.inf, 0.0, np.inf)
        return at - self._start

    def remove(self, place: int) -> None:
        """The row at ``place`` leaves."""
        at = self._start + place
        if place < self._stop - at - 1:
            first = self._start
            self._whole[:, first + 1 : at + 1] = self._whole[:, first:at]
            self._real[:, first + 1 : at + 1] = self._real[:, first:at]
            self._start += 1
        else:
            last = self._stop
            self._whole[:, at : last - 1] = self._whole[:, at + 1 : last]
            self._real[:, at : last - 1] = self._real[:, at + 1 : last]
            self._stop -= 1

    def decodes(self, place: int) -> None:
        """The row at ``place`` decodes from now on."""
        self._whole[PREFILL, self._start + place] = 0
        self._whole[DECODES, self._start + place] = 1

    def limited(self, place: int, sequence: SimulatedSequence) -> None:
        """The row at ``place`` has a first token: its limits on gaps count from now on."""
        at, limits = self._start + place, sequence.request.limits
        self._real[END, at] = np.inf if limits.e2e_s is None else sequence.sent_s + limits.e2e_s
        if sequence.request.streaming:
            self._real[ITL, at] = np.inf if limits.itl_s is None else limits.itl_s
            if limits.tpot_s is not None:
                self._real[TPOT, at], self._real[FIRST, at] = limits.tpot_s, sequence.first_token_s

    def advance(self, steps: int, *, all_decode: bool, whole_answers: bool) -> None:
        """Every decode has ``steps`` more tokens. ``whole_answers``: whether any row does not stream."""
        context, emitted = self.whole(CONTEXT), self.whole(EMITTED)
        if all_decode:
            context += steps
            emitted += steps
        else:
            more = steps * self.whole(DECODES)
            context += more
            emitted += more
        if whole_answers:
            due = self.whole(DUE)
            due[due > 1] = np.maximum(self.whole(CAP) - emitted, 1)[due > 1]

    def gain(self, place: int, tokens: int) -> None:
        """The row at ``place`` has so many tokens more than ``advance`` gave it."""
        at = self._start + place
        self._whole[CONTEXT, at] += tokens
        self._whole[EMITTED, at] += tokens
        if self._whole[DUE, at] > 1:
            self._whole[DUE, at] = max(1, self._whole[CAP, at] - self._whole[EMITTED, at])

    def columns(self, *, last_token_s: float, limits: bool) -> Columns:
        """As policies see them; ``last_token_s``: when all decodes had their last token. ``limits``: whether any has one."""
        if self._start == self._stop:
            return NO_COLUMNS
        window = slice(self._start, self._stop)
        ids, context, prefill, emitted, due, kind, cap, tenant, _, decodes, _ = self._whole[:, window]
        arrived_s, gap_s, deadline_s, end_s, itl_s, tpot_s, first_s = self._real[:, window]
        if limits and decodes.any():
            moving = next_deadlines_s(
                end_s=end_s,
                itl_s=itl_s,
                tpot_s=tpot_s,
                first_token_s=first_s,
                last_token_s=last_token_s,
                emitted_tokens=emitted,
            )
            deadline_s = np.where(decodes == 1, moving, deadline_s)
        return Columns(ids, arrived_s, deadline_s, context, prefill, emitted, due, kind, cap, gap_s, tenant)

    def _make_room(self) -> None:
        """Twice the room if more than half of it is used, else the same with the window at its beginning."""
        rows, room = len(self), self._whole.shape[1]
        larger = 2 * room if 2 * rows > room else room
        window = slice(self._start, self._stop)
        whole, real = self._whole[:, window].copy(), self._real[:, window].copy()
        self._whole = np.zeros((WHOLE, larger), dtype=np.int64)
        self._real = np.zeros((7, larger), dtype=np.float64)
        self._whole[:, :rows], self._real[:, :rows] = whole, real
        self._start, self._stop = 0, rows
