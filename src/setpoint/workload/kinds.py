"""Four kinds of work that differ in how well the next tokens can be guessed, as prompts of plain text.

Filling forms and editing code repeat what stands in the prompt; short answers to questions do not; stories at temperature 1
are the hardest. Prompts are made from a number, so that any count of different ones can be had, and the same number is the same
prompt for ever. They are continuations, not conversations, so that models without a chat template take them too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class WorkloadKind(StrEnum):
    """What is asked."""

    TEMPLATE = "template"
    CODE = "code"
    QUESTIONS = "questions"
    STORY = "story"


@dataclass(frozen=True, slots=True)
class KindOfWork:
    """``prompt(number)``: its text. ``temperature`` and ``output_tokens``: of every request. ``words``: what it is called."""

    kind: WorkloadKind
    words: str
    prompt: Callable[[int], str]
    temperature: float
    output_tokens: int


NAMES: Final = ("Ada", "Bruno", "Clara", "David", "Edith", "Felix", "Grace", "Hugo", "Irene", "Jonas", "Karin", "Lewis")
TOWNS: Final = (
    "Lisbon",
    "Oslo",
    "Ghent",
    "Turin",
    "Lyon",
    "Graz",
    "Cork",
    "Basel",
    "Bergen",
    "Porto",
    "Malmo",
    "Leeds",
    "Bonn",
)
GOODS: Final = ("lamp", "desk", "kettle", "bicycle", "guitar", "camera", "tent", "clock", "jacket", "mirror", "printer")
QUESTIONS: Final = (
    "What is the capital of Norway?",
    "Why does bread rise in the oven?",
    "Who wrote the play Hamlet?",
    "How do bees find their way home?",
    "What is the difference between weather and climate?",
    "Why is the sky blue during the day?",
    "How does a bicycle stay upright?",
    "What does a blacksmith do?",
    "When did people first fly in a balloon?",
    "What is the purpose of a keel on a sailing boat?",
    "Why do cats purr?",
    "What makes a violin sound different from a flute?",
)
OPENINGS: Final = (
    "The night the lighthouse went dark,",
    "Nobody in the village remembered who had built the clock, but",
    "Under the floor of the old bakery",
    "The letter arrived eleven years late, and",
    "On the last tram of the evening",
    "My grandmother's map of the valley showed a lake that",
    "The orchestra had been waiting for an hour when",
    "Somewhere between the third and fourth floor",
)
FUNCTIONS: Final = (
    ("total", "values", "value", "price"),
    ("collect", "items", "item", "weight"),
    ("summarise", "records", "record", "score"),
    ("measure", "samples", "sample", "height"),
    ("combine", "orders", "order", "amount"),
    ("tally", "tickets", "ticket", "minutes"),
)


def _record(number: int) -> tuple[str, str, str, int]:
    return (
        NAMES[number % len(NAMES)],
        TOWNS[(5 * number + 3) % len(TOWNS)],
        GOODS[(7 * number + 1) % len(GOODS)],
        10 + 37 * number % 90,
    )


def _line(number: int) -> str:
    name, town, goods, count = _record(number)
    return f"{name} from {town} ordered a {goods} for {count} euros."


def _form(number: int) -> str:
    name, town, goods, count = _record(number)
    return (
        f'{{"customer": {{"first_name": "{name}", "city": "{town}", "country": null}}, "order": {{"article": "{goods}",'
        f' "price": {count}, "currency": "EUR", "status": "received"}}, "source": "mail", "reviewed": false}}'
    )


def template_prompt(number: int) -> str:
    """Three sentences and their forms, and a fourth sentence whose form is to be written."""
    shown = "".join(f"Text: {_line(3 * number + i)}\nForm: {_form(3 * number + i)}\n\n" for i in range(3))
    return f"Each text is put into a form.\n\n{shown}Text: {_line(3 * number + 101)}\nForm:"


def _function(number: int, name: str) -> str:
    _, many, one, field = FUNCTIONS[number % len(FUNCTIONS)]
    limit = 10 + 13 * number % 80
    return (
        f"def {name}({many}, limit={limit}):\n"
        f'    """Add up the {field} of all {many} that are valid."""\n'
        f"    total_{field} = 0\n"
        f"    skipped = []\n"
        f"    for {one} in {many}:\n"
        f"        if {one}.{field} is None or {one}.{field} > limit:\n"
        f"            skipped.append({one})\n"
        f"            continue\n"
        f"        total_{field} += {one}.{field}\n"
        f"    if skipped:\n"
        f'        print(f"skipped {{len(skipped)}} of {{len({many})}} {many}")\n'
        f"    return total_{field}\n"
    )


def code_prompt(number: int) -> str:
    """A function, and the beginning of the same function under another name."""
    name = f"{FUNCTIONS[number % len(FUNCTIONS)][0]}_{number % 7}"
    return (
        f"The function {name} is renamed to new_{name}. Nothing else is changed.\n\n"
        f"Before:\n```python\n{_function(number, name)}```\n\nAfter:\n```python\ndef new_{name}("
    )


def question_prompt(number: int) -> str:
    """A question of a sentence."""
    return f"Question: {QUESTIONS[number % len(QUESTIONS)]}\nShort answer:"


def story_prompt(number: int) -> str:
    """The beginning of a story."""
    return OPENINGS[number % len(OPENINGS)]


KINDS: Final = {
    each.kind: each
    for each in (
        KindOfWork(WorkloadKind.TEMPLATE, "filling a form", template_prompt, 0.0, 80),
        KindOfWork(WorkloadKind.CODE, "editing code", code_prompt, 0.0, 120),
        KindOfWork(WorkloadKind.QUESTIONS, "short answers", question_prompt, 0.0, 48),
        KindOfWork(WorkloadKind.STORY, "stories at temperature 1", story_prompt, 1.0, 96),
    )
}
"""By kind; the first two are predictable."""
