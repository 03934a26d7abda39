"""Groups of options: spread out for the command line, put together for the command."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from setpoint.commands.options import with_groups
from setpoint.loop.flags import PANELS, option

FAR, NEAR = "Far", "Near"


@dataclass(frozen=True, slots=True)
class Colours:
    front: Annotated[str | None, option("NAME", "What is seen first.", FAR)] = None
    back: Annotated[list[str] | None, option("NAME", "What is behind.", NEAR)] = None


@dataclass(frozen=True, slots=True)
class Sizes:
    height: Annotated[int, option("N", "How high.", NEAR, name="--high", min=0)] = 3
    flat: Annotated[bool, typer.Option("--flat")] = False


SEEN: list[tuple[str, Colours, Sizes]] = []


def paint(subject: Annotated[str, typer.Argument()], colours: Colours, sizes: Sizes) -> int:
    """Paint it."""
    SEEN.append((subject, colours, sizes))
    return 5


@pytest.fixture
def runner() -> tuple[CliRunner, typer.Typer]:
    app = typer.Typer()
    app.command()(with_groups(paint, (NEAR, FAR)))
    SEEN.clear()
    return CliRunner(), app


def test_a_command_gets_its_groups_as_they_are_declared(runner: tuple[CliRunner, typer.Typer]) -> None:
    call, app = runner
    assert call.invoke(app, ["wall", "--front", "red", "--back", "blue", "--back", "green", "--high", "7"]).exit_code == 0
    assert [("wall", Colours("red", ["blue", "green"]), Sizes(7))] == SEEN


def test_without_options_the_defaults_of_the_group_hold(runner: tuple[CliRunner, typer.Typer]) -> None:
    call, app = runner
    assert call.invoke(app, ["wall"]).exit_code == 0
    assert [("wall", Colours(), Sizes())] == SEEN


def test_limits_of_an_option_are_checked(runner: tuple[CliRunner, typer.Typer]) -> None:
    call, app = runner
    done = call.invoke(app, ["wall", "--high", "-1"])
    assert done.exit_code == 2
    assert SEEN == []


def test_the_signature_is_that_of_the_options_in_the_order_of_the_panels() -> None:
    spread = with_groups(paint, (NEAR, FAR))
    assert list(inspect.signature(spread).parameters) == ["subject", "flat", "back", "height", "front"]
    assert spread(subject="wall", front=None, back=None, height=1, flat=True) == 5
    assert spread.__doc__ == "Paint it."


def test_a_group_without_a_default_is_a_mistake_of_ours() -> None:
    @dataclass
    class Bad:
        must: Annotated[int, option("N", "No default.")]

    def command(bad: Bad) -> int:
        return 0

    command.__annotations__["bad"] = Bad
    with pytest.raises(AssertionError, match="an option has a default"):
        with_groups(command)


def test_every_panel_of_measure_has_its_place() -> None:
    assert len(set(PANELS)) == len(PANELS)
