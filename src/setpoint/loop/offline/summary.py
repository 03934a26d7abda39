"""How a batch ended: the words, the JSON and the exit code."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from setpoint.loop.interrupts import EXIT_INTERRUPTED
from setpoint.loop.offline.progress import duration_words
from setpoint.loop.offline.tally import Tally
from setpoint.record import EXIT_MET, EXIT_MISSED


@dataclass(frozen=True, slots=True)
class Summary:
    """The end of one run. stopped: why it ended before its requests did, empty if it did not."""

    input: Path
    output: Path
    errors: Path | None
    tally: Tally
    duration_s: float
    stopped: str = ""
    interrupted: bool = False

    @property
    def exit_code(self) -> int:
        """0 all done, 1 some failed or were left, 130 interrupted."""
        if self.interrupted:
            return EXIT_INTERRUPTED
        return EXIT_MISSED if self.tally.failed or self.tally.left else EXIT_MET

    def words(self) -> str:
        """For people: what came of it, and how to go on if it is not all."""
        tally = self.tally
        lines = [f"{tally.total} requests: {tally.done} done, {tally.failed} failed, {tally.left} left; {self._this_run()}"]
        lines.append(f"answers: {self.output}" + (f"; errors: {self.errors}" if self.errors else ""))
        if tally.left or self.stopped:
            lines.append(f"{self.stopped or 'stopped'}; what is done is kept, run the same command again to go on")
        return "\n".join(lines)

    def _this_run(self) -> str:
        tally = self.tally
        ended = tally.ended - tally.already
        again = f"; asked again: {tally.again} that had failed" if tally.again else ""
        if not ended:
            return f"none of them in this run{again}"
        speed = f"{tally.output_tokens / max(self.duration_s, 1e-3):.0f} tok/s"
        return f"{ended} in this run, {duration_words(self.duration_s)}, {speed}{again}"

    def to_json(self) -> str:
        """One JSON object on one line."""
        tally = self.tally
        ended, seconds = tally.ended - tally.already, max(self.duration_s, 1e-3)
        return json.dumps(
            {
                "input": str(self.input),
                "output": str(self.output),
                "errors": None if self.errors is None else str(self.errors),
                "requests": tally.total,
                "done": tally.done,
                "failed": tally.failed,
                "left": tally.left,
                "already_ended": tally.already,
                "asked_again": tally.again,
                "retried": tally.retried,
                "refused": tally.refused,
                "duration_s": round(self.duration_s, 3),
                "requests_per_s": round(ended / seconds, 3),
                "prompt_tokens": tally.prompt_tokens,
                "output_tokens": tally.output_tokens,
                "output_tokens_per_s": round(tally.output_tokens / seconds, 1),
                "stopped": self.stopped or None,
                "exit_code": self.exit_code,
            }
        )
