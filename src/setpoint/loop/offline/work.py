"""A batch as a whole, and what becomes of the failures of earlier runs that are asked again."""

from __future__ import annotations

from dataclasses import dataclass

from setpoint.loop.console import say
from setpoint.loop.offline.input_index import InputIndex
from setpoint.loop.offline.output_file import CannotReplace, OutputFile
from setpoint.loop.offline.tally import Tally


@dataclass(frozen=True, slots=True)
class Work:
    """What a batch is, whichever server does it: the input, the output, and what it has come to."""

    index: InputIndex
    output: OutputFile
    tally: Tally

    def begin(self) -> None:
        """Results follow: take the failures that may have passed out of the output and say so; again it does nothing.

        Where the output can only be appended to they stay as they are, as settled.
        """
        try:
            again = self.output.begin()
        except CannotReplace as error:
            kept = self.output.settle(self.index)
            self.tally.keep_failed(kept)
            say(f"{self.output.path}: not asking again {kept} that failed before: {error}")
            return
        if again:
            self.tally.again = again
            say(f"{self.output.path}: asking again {again} that failed before: what stood in the way may have passed")

    def end(self) -> None:
        """Whatever ended the run: the failures that were taken out and have no new result go back. Again it does nothing."""
        self.tally.keep_failed(self.output.put_back(self.index))
