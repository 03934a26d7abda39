"""Sampling against a slow second implementation: distributions by chi-square, penalties and filters exactly."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from engine_prompts import LIGHTHOUSE
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sampling_reference import FALSE_ALARM_SIGMA, chi_square_sigma, distribution, penalised

from model_reference import Reference
from setpoint.engine.openvino import sampler as sampler_module
from setpoint.engine.openvino.sampler import Sampler, adjust, nucleus_size
from setpoint.engine.request import GenerationRequest, SamplingParams
from setpoint.engine.sequence import Sequence
from setpoint.engine.tokenizer import ModelTokenizer

DRAWS = 2048
ROWS = 32


def sequence_of(sampling: SamplingParams, prompt: list[int] | None = None, emitted: list[int] | None = None) -> Sequence:
    sequence = Sequence(0, GenerationRequest(tuple(prompt or [1]), sampling), arrived_s=0.0, max_tokens=1000)
    for token in emitted or []:
        sequence.emit(token, 0.0)
    return sequence


def draw(sampler: Sampler, row: npt.NDArray[np.float32], sampling: SamplingParams, count: int = DRAWS) -> list[int]:
    """``count`` draws from one row of logits, ``ROWS`` sequences at a time, each with its own seed."""
    sequences = [sequence_of(replace(sampling, seed=seed)) for seed in range(ROWS)]
    rows = np.repeat(row[None], ROWS, axis=0)
    return [token for _ in range(count // ROWS) for token in sampler.choose(rows, sequences)]


def replace(sampling: SamplingParams, **changes: object) -> SamplingParams:
    values = {name: getattr(sampling, name) for name in SamplingParams.__slots__}
    return SamplingParams(**{**values, **changes})


def synthetic(vocabulary: int, *, spread: float = 2.0, seed: int = 0) -> npt.NDArray[np.float32]:
    return (np.random.default_rng(seed).standard_normal(vocabulary) * spread).astype(np.float32)


@pytest.fixture(scope="module")
def real_row(reference: Reference, tokenizer: ModelTokenizer) -> npt.NDArray[np.float32]:
    """Logits after a passage that may go on in many ways."""
    row: npt.NDArray[np.float32] = reference.logits(tokenizer.encode(f"{LIGHTHOUSE}\n\nOne night in November"))[-1]
    return row


@pytest.fixture(scope="module")
def real_sampler() -> Sampler:
    return Sampler(49152, None)


PLAIN, HEAD, WIDE = "by groups", "among the 64 largest", "by rejection"


@pytest.mark.model
@pytest.mark.parametrize(
    ("path", "options"),
    [
        (PLAIN, {"temperature": 1.0}),
        (PLAIN, {"temperature": 0.6}),
        (PLAIN, {"temperature": 2.0}),
        (HEAD, {"temperature": 1.0, "top_k": 5}),
        (HEAD, {"temperature": 1.5, "top_k": 64}),
        (HEAD, {"temperature": 0.7, "top_p": 0.8}),
        (HEAD, {"temperature": 1.0, "min_p": 0.05}),
        (HEAD, {"temperature": 1.2, "top_k": 50, "top_p": 0.9, "min_p": 0.02}),
        (WIDE, {"temperature": 1.6, "top_p": 0.95}),
        (WIDE, {"temperature": 1.6, "top_k": 300}),
        (WIDE, {"temperature": 2.0, "top_k": 300, "top_p": 0.8}),
        (WIDE, {"temperature": 2.0, "top_p": 0.9, "min_p": 0.002}),
        # Few draws from the whole vocabulary would lie inside: giving up after some of them draws the likeliest too often.
        (WIDE, {"temperature": 5.0, "min_p": 0.2}),
    ],
    ids=str,
)
def test_draws_follow_the_distribution(
    path: str,
    options: dict[str, float],
    real_row: npt.NDArray[np.float32],
    real_sampler: Sampler,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """False alarm rate 1e-5 a case for another seed; the seeds are fixed."""
    rejections = 0
    original = sampler_module.draw_from_nucleus

    def counted(*arguments: object) -> int:
        nonlocal rejections
        rejections += 1
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(sampler_module, "draw_from_nucleus", counted)
    sampling = replace(SamplingParams(), **options)
    draws = draw(real_sampler, real_row, sampling)
    assert rejections == (DRAWS if path == WIDE else 0)
    assert chi_square_sigma(draws, distribution(real_row, sampling)) < FALSE_ALARM_SIGMA


@pytest.mark.parametrize("vocabulary", [5, 10, 63, 64, 65, 255, 256, 257, 1000])
@pytest.mark.parametrize("options", [{}, {"top_p": 0.7}, {"top_k": 100, "min_p": 0.01}], ids=str)
def test_any_vocabulary(vocabulary: int, options: dict[str, float]) -> None:
    """Also one that is no multiple of a group, smaller than a group, or smaller than the head."""
    row = synthetic(vocabulary, seed=vocabulary)
    sampling = replace(SamplingParams(temperature=1.3), **options)
    draws = draw(Sampler(vocabulary, 1), row, sampling, count=1024)
    assert chi_square_sigma(draws, distribution(row, sampling)) < FALSE_ALARM_SIGMA


@pytest.mark.parametrize("options", [{"top_p": 0.4}, {"top_k": 200, "top_p": 0.5}, {"min_p": 0.01, "top_p": 0.9}], ids=str)
def test_when_no_draw_lies_inside_the_vocabulary_is_sorted(options: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler_module, "TRIES", 0)
    row = synthetic(1000, spread=0.8)
    sampling = replace(SamplingParams(temperature=1.3), **options)
    draws = draw(Sampler(1000, 1), row, sampling)
    assert chi_square_sigma(draws, distribution(row, sampling)) < FALSE_ALARM_SIGMA


def test_the_test_notices_a_wrong_distribution() -> None:
    row = synthetic(1000)
    draws = draw(Sampler(1000, 1), row, SamplingParams(temperature=1.3))
    assert chi_square_sigma(draws, distribution(row, SamplingParams(temperature=1.0))) > FALSE_ALARM_SIGMA
    with pytest.raises(AssertionError, match="exclude"):
        chi_square_sigma(draws, distribution(row, SamplingParams(temperature=1.3, top_k=20)))


@pytest.mark.parametrize("options", [{}, {"top_p": 0.9}, {"top_k": 200, "top_p": 0.99}], ids=str)
def test_a_seed_means_the_same_in_any_batch(options: dict[str, float]) -> None:
    rows = np.stack([synthetic(1000, seed=seed, spread=1.0) for seed in range(5)])
    sampler = Sampler(1000, 1)

    def answers(seeds: list[int], together: bool) -> list[list[int]]:
        sequences = [sequence_of(replace(SamplingParams(seed=seed), **options)) for seed in seeds]
        if together:
            steps = [sampler.choose(rows, sequences) for _ in range(8)]
        else:
            steps = [[sampler.choose(rows[i : i + 1], [s])[0] for i, s in enumerate(sequences)] for _ in range(8)]
        return [list(answer) for answer in zip(*steps, strict=True)]

    seeds = [7, -1, 1, 1 << 63, -(1 << 63)]
    assert answers(seeds, True) == answers(seeds, False) == answers(seeds, True)
    assert answers(seeds, True) != answers([seed + 1 for seed in seeds], True)


def test_without_a_seed_answers_differ() -> None:
    rows = np.repeat(synthetic(1000, spread=0.1)[None], 2, axis=0)
    sequences = [sequence_of(SamplingParams()) for _ in range(2)]
    sampler = Sampler(1000, 1)
    one, other = zip(*(sampler.choose(rows, sequences) for _ in range(16)), strict=True)
    assert one != other


@pytest.mark.parametrize("penalty", [{}, {"presence_penalty": 1.5, "repetition_penalty": 1.3}], ids=str)
def test_top_k_of_one_is_greedy(penalty: dict[str, float]) -> None:
    rows = np.stack([synthetic(500, seed=seed) for seed in range(4)])
    hot = [sequence_of(replace(SamplingParams(temperature=1.9, top_k=1), **penalty), [1, 2], [3]) for _ in rows]
    cold = [sequence_of(replace(SamplingParams(temperature=0.0), **penalty), [1, 2], [3]) for _ in rows]
    sampler = Sampler(500, 1)
    assert sampler.choose(rows, hot) == sampler.choose(rows, cold)
    assert all(s.request.sampling.is_greedy for s in hot + cold)
    assert [s.wants_logits for s in hot + cold] == [bool(penalty)] * 8
    if not penalty:
        assert sampler.choose(rows, hot) == rows.argmax(axis=1).tolist()


def test_a_mixed_batch_is_put_together_again_in_order() -> None:
    """Each row has one token that stands far above the rest, so that every way of sampling must find it."""
    kinds = [
        {"temperature": 0.0, "presence_penalty": 0.1},
        {"temperature": 1.0},
        {"temperature": 1.0, "top_p": 0.5},
        {"temperature": 1.0, "top_k": 1},
        {"temperature": 0.5},
        {"temperature": 1.0, "min_p": 0.5, "frequency_penalty": 0.2},
    ]
    rows = np.zeros((len(kinds), 777), dtype=np.float32)
    best = [5, 700, 256, 255, 776, 0]
    rows[np.arange(len(kinds)), best] = 60
    before = rows.copy()
    sequences = [sequence_of(replace(SamplingParams(), **kind), [0, 5, 256], [5, 0]) for kind in kinds]
    assert Sampler(777, 1).choose(rows, sequences) == best
    assert (rows == before).all(), "the runtime's logits were changed"


class Letters:
    """A grammar that is only there: what it allows is given to the sampler as numbers."""

    def begin(self) -> None:
        raise AssertionError("the sampler asks the masks, not the grammar")


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_rows_with_grammars_or_penalties_do_not_change_those_beside_them(data: st.DataObject) -> None:
    kinds = data.draw(
        st.lists(st.sampled_from(["cold", "held", "held hot", "penalised", "plain", "head"]), min_size=1, max_size=6)
    )
    options: dict[str, dict[str, object]] = {
        "cold": {"temperature": 0.0},
        "held": {"temperature": 0.0, "grammar": Letters()},
        "held hot": {"temperature": 1.0, "grammar": Letters()},
        "penalised": {"temperature": 0.0, "presence_penalty": 90.0},
        "plain": {"temperature": 1.0},
        "head": {"temperature": 1.0, "top_p": 0.5},
    }
    rows = np.zeros((len(kinds), 300), dtype=np.float32)
    rows[:, 7], rows[:, 9] = 60, 30
    added = np.zeros_like(rows)
    for row, kind in enumerate(kinds):
        if kind.startswith("held"):
            added[row, 7] = -np.inf
    before = rows.copy()
    sequences = [sequence_of(replace(SamplingParams(), **options[kind]), [1], [7]) for kind in kinds]
    expected = [9 if kind.startswith("held") or kind == "penalised" else 7 for kind in kinds]
    assert Sampler(300, 1).choose(rows, sequences, added if added.any() else None) == expected
    assert (rows == before).all(), "the runtime's logits were changed"


tokens_of_ten = st.lists(st.integers(0, 9), max_size=12)


@given(
    logits=st.lists(st.floats(-30, 30, width=32), min_size=10, max_size=10),
    prompt=st.lists(st.integers(0, 9), min_size=1, max_size=12),
    emitted=tokens_of_ten,
    presence=st.floats(-2, 2),
    frequency=st.floats(-2, 2),
    repetition=st.floats(0.5, 2),
)
def test_penalties(
    logits: list[float], prompt: list[int], emitted: list[int], presence: float, frequency: float, repetition: float
) -> None:
    sampling = SamplingParams(presence_penalty=presence, frequency_penalty=frequency, repetition_penalty=repetition)
    row = np.array(logits, dtype=np.float32)
    adjust(row, sequence_of(sampling, prompt, emitted))
    np.testing.assert_allclose(row, penalised(logits, prompt, emitted, sampling), rtol=1e-5, atol=1e-5)


@given(
    seed=st.integers(0, 1 << 16),
    spread=st.floats(0.1, 4),
    head=st.integers(2, 60),
    top_k=st.sampled_from([0, 1, 3, 30, 59, 60]),
    top_p=st.sampled_from([0.01, 0.3, 0.9, 0.999, 1.0]),
    min_p=st.sampled_from([0.0, 0.01, 0.2, 1.0]),
)
@settings(max_examples=300)
def test_the_head_tells_the_size_of_the_nucleus_or_says_that_it_cannot(
    seed: int, spread: float, head: int, top_k: int, top_p: float, min_p: float
) -> None:
    assume(top_k or top_p < 1 or min_p)
    row = np.sort(synthetic(60, spread=spread, seed=seed))[::-1]
    sampling = SamplingParams(top_k=top_k, top_p=top_p, min_p=min_p)
    weights = np.exp(row.astype(np.float64) - float(row[0]))
    size = nucleus_size(weights[:head], float(weights.sum()), sampling)
    exact = int((distribution(row, sampling) > 0).sum())
    if size is None:
        # Then the head did not hold all that top-k and top-p keep; that min-p might have cut it back is not looked at.
        assert top_k > head or int((distribution(row, replace(sampling, min_p=0.0)) > 0).sum()) >= head
    else:
        assert size == exact


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 1e-4},
        {"temperature": 1e6},
        {"temperature": 1.0, "repetition_penalty": 1e-3},
        {"temperature": 1.0, "repetition_penalty": 1e3},
        {"temperature": 1.0, "presence_penalty": 1e30, "top_p": 0.5},
        {"temperature": 1e-4, "top_p": 1e-9, "min_p": 1.0},
        {"temperature": 1e6, "top_k": 1 << 62, "top_p": 0.999999},
    ],
    ids=str,
)
def test_extreme_parameters_still_choose_a_token(options: dict[str, float]) -> None:
    rows = np.stack([synthetic(300, spread=10, seed=seed) for seed in range(3)])
    sequences = [sequence_of(replace(SamplingParams(seed=seed), **options), [1, 2, 3], [4, 5, 5]) for seed in range(3)]
    assert all(0 <= token < 300 for token in Sampler(300, 1).choose(rows, sequences))
