"""The draft model that a configuration names: found, and fit to guess for the model served, before anything is started."""

from __future__ import annotations

from setpoint.engine.models import ModelNotFound, ResolvedModel, resolve_model
from setpoint.engine.openvino.graph import WEIGHTS_FILE
from setpoint.engine.request import EngineFailed
from setpoint.engine.tokenizer import ModelTokenizer
from setpoint.policy.configuration import ServingConfig, SpeculationMode


def draft_source(config: ServingConfig, model: ResolvedModel, tokenizer: ModelTokenizer) -> ResolvedModel | None:
    """The folder of the draft model; ``None`` if ``config`` wants none.

    Raises ``EngineFailed`` with one sentence if there is none, it cannot be read, is not smaller than ``model``, or has another
    vocabulary: every token must have the same bytes in both.
    """
    if config.speculation is not SpeculationMode.DRAFT:
        if config.draft_model is not None:
            raise EngineFailed(
                f"--draft-model {config.draft_model}: only read with --speculation draft, found {config.speculation.value!r}"
            )
        return None
    if not config.draft_model:
        raise EngineFailed("--speculation draft: needs a second, smaller model: give it with --draft-model")
    try:
        draft = resolve_model(config.draft_model)
    except ModelNotFound as error:
        raise EngineFailed(f"--draft-model: {error}") from error
    _check_size(draft, model)
    _check_vocabulary(draft, ModelTokenizer(draft.folder), model, tokenizer)
    return draft


def _check_size(draft: ResolvedModel, model: ResolvedModel) -> None:
    own, other = ((each.folder / WEIGHTS_FILE).stat().st_size / 1e6 for each in (draft, model))
    if own >= other:
        raise EngineFailed(
            f"--draft-model {draft.name}: its weights have {own:.0f} MB, those of {model.name} {other:.0f} MB: give a smaller"
            " model, a guess must cost less than the answer"
        )


def _check_vocabulary(draft: ResolvedModel, own: ModelTokenizer, model: ResolvedModel, other: ModelTokenizer) -> None:
    if own.vocabulary_size != other.vocabulary_size:
        raise EngineFailed(
            f"--draft-model {draft.name}: its vocabulary has {own.vocabulary_size} tokens, that of {model.name}"
            f" {other.vocabulary_size}: give a model with the same tokenizer"
        )
    for token in range(own.vocabulary_size):
        one, two = own.piece(token), other.piece(token)
        if one != two:
            raise EngineFailed(
                f"--draft-model {draft.name}: token {token} is {one!r} in its vocabulary and {two!r} in that of {model.name}:"
                " give a model with the same tokenizer"
            )
