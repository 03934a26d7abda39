"""The ``speculation`` section: drafters, the draft model, acceptance."""

from __future__ import annotations

import pytest

from setpoint.requirement import RequirementError, Speculation, parse_requirement

SHORT = """\
name: chat
profile:
  prompt_tokens: 128
  output_tokens: 64
  arrival: {rate: 2/s}
speculation:
"""


def test_every_field_is_read() -> None:
    text = SHORT + "  drafters: [prompt-lookup, draft]\n  draft_model: llama-3.1-8b\n"
    text += "  acceptance: [0.9, 70%, 0.5]\n  drafted_share: 38%\n"
    assert parse_requirement(text, "file").speculation == Speculation(
        drafters=("prompt-lookup", "draft"), draft_model="llama-3.1-8b", acceptance=(0.9, 0.7, 0.5), drafted_share=0.38
    )
    assert parse_requirement(SHORT.replace("speculation:\n", ""), "file").speculation is None


def test_one_drafter_and_one_chance_need_no_list() -> None:
    text = SHORT + "  drafters: prompt-lookup\n  acceptance: 75%\n"
    assert parse_requirement(text, "file").speculation == Speculation(drafters=("prompt-lookup",), acceptance=(0.75,))


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("acceptance: 75%", "speculation.drafters"),
        ("drafters: eagle", 'speculation.drafters: found "eagle"; allowed: prompt-lookup, draft'),
        ("drafters: draft", "speculation.draft_model: found nothing; allowed: a smaller model with the same vocabulary"),
        ("drafters: prompt-lookup\n  draft_model: small", "speculation.draft_model"),
        ("drafters: [prompt-lookup, prompt-lookup]", "every drafter once"),
        ("drafters: prompt-lookup\n  acceptance: [0.5, 0.9]", "speculation.acceptance: found a list; allowed: shares"),
        ("drafters: prompt-lookup\n  acceptance: 120%", "speculation.acceptance"),
        ("drafters: prompt-lookup\n  acceptance: often", "speculation.acceptance"),
        ("drafters: prompt-lookup\n  acceptance: 70%\n  drafted_share: 120%", "speculation.drafted_share"),
        ("drafters: prompt-lookup\n  drafted_share: 38%", 'speculation.drafted_share: found "38%"; allowed: nothing, or acc'),
        ("drafters: prompt-lookup\n  tokens: 4", "speculation.tokens: found this key"),
    ],
)
def test_a_wrong_field_is_named(lines: str, said: str) -> None:
    with pytest.raises(RequirementError) as raised:
        parse_requirement(f"{SHORT}  {lines}\n", "file")
    assert said in str(raised.value)
