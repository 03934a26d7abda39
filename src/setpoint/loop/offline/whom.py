"""Which server to ask and under which model names, found out before the first request."""

from __future__ import annotations

from dataclasses import replace

from setpoint.loop.console import say
from setpoint.loop.errors import BadInput
from setpoint.loop.offline.drive import Models
from setpoint.loop.offline.input_index import InputIndex
from setpoint.measure.probe import discover
from setpoint.measure.target import Target

NAMES_SHOWN = 5


async def models_at(target: Target, index: InputIndex) -> Models:
    """The names to use at somebody's server. Raises ``ProbeError`` or ``BadInput`` if it does not serve what is asked for."""
    if target.model:
        return Models(instead=(await discover(target)).target.model)
    named = [name for name in index.models if name is not None]
    found = await discover(replace(target, model=named[0] if named else ""))
    offered = ", ".join(found.models[:NAMES_SHOWN])
    for name in named[1:]:
        if not found.serves(name):
            raise BadInput(f"{index.path}: body.model: {name!r} is not served at {target.url}, which offers: {offered}")
    if named and None in index.models and len(found.models) != 1:
        raise BadInput(f"{index.path}: body.model: some requests name no model and {target.url} offers: {offered}; name it")
    only = found.models[0]
    return Models(default=found.target.model if not named or "*" in only else only)


async def models_of_own(target: Target, index: InputIndex) -> Models:
    """The one model of a server that we started, whatever the input names; differences are said."""
    name = (await discover(target)).target.model
    others = [other for other in index.models if other not in (None, name)]
    if others:
        shown = ", ".join(map(str, others[:NAMES_SHOWN]))
        say(f"requests for {shown} are answered by {name}")
    return Models(instead=name)
