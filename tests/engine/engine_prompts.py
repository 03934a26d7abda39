"""Prompts for the real model: one token to four hundred, prose, code, tables, several languages, conversations."""

from __future__ import annotations

from setpoint.engine.tokenizer import ModelTokenizer

NEW_TOKENS = (20, 24)
# Ten short prompts in a row with long answers (the end token ignored) outgrow a small cache together: that preempts.
LONG_ANSWERS, LONG_ANSWER_TOKENS = range(12, 22), 100

WORDS = ("The", "def", "1", "Once upon", "Dear Sir or Madam,", "import numpy as np\n", "Yesterday", "<h1>")

SENTENCES = (
    "The capital of France is",
    "Water boils at one hundred degrees Celsius because",
    "To make a good cup of tea, first",
    "My grandmother kept bees, and every autumn she",
    "The three primary colours are",
    "If a train leaves the station at nine and travels sixty miles an hour, then by noon it",
    "A short history of the bicycle: the first one was built in",
    "Roses are red, violets are blue,",
    "The opposite of hot is cold. The opposite of tall is",
    "2, 4, 8, 16, 32,",
    "Q: How many legs does a spider have?\nA:",
    "Translate into Spanish: the dog sleeps under the table. ->",
    "Subject: Meeting on Thursday\n\nHi Anna,\n\n",
    "She opened the door, looked into the dark hallway and",
)

OTHER_SCRIPTS = (
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return",
    "SELECT name, COUNT(*) FROM orders WHERE year = 2024 GROUP BY",
    '{"name": "Ada", "born": 1815, "works": ["notes", "letters"], "city":',
    "| city | country |\n| --- | --- |\n| Lisbon | Portugal |\n| Oslo |",
    "for (int i = 0; i < n; i++) {\n    sum +=",
    "Der Hund läuft über die Straße und",
    "La bibliothèque est fermée le dimanche parce que",
    "東京は日本の",
    "Emoji diary: 😀 means happy, 😢 means sad, 🎉 means",
    "x^2 + 5x + 6 = (x + 2)(x +",
)

LIGHTHOUSE = (
    "The lighthouse stood at the end of a narrow spit of rock, and for forty years the same family had kept its lamp. Every"
    " evening at dusk somebody climbed the hundred and twelve steps, trimmed the wick, wound the clockwork that turned the"
    " lens, and wrote the hour and the weather into a ledger bound in oilcloth. On clear nights the beam could be seen from"
    " the fishing villages across the bay, and children were told that as long as it turned, all was well."
)
MARKET = (
    "On market days the square filled before sunrise. Farmers from the valley brought cabbages and onions, a woman in a green"
    " coat sold honey in jars without labels, and at the corner by the fountain two brothers sharpened knives on a wheel"
    " they drove with a pedal. Prices were never written down. Everybody knew what a dozen eggs had cost the week before, and"
    " everybody pretended to have forgotten it. By noon the best of everything was gone and the talk began."
)
BRIDGE = (
    "The engineers who came to inspect the bridge found three faults. The bearings on the northern side had rusted until they"
    " no longer moved, so that in summer, when the steel grew longer, the whole deck pressed against its abutment. The drains"
    " were blocked with leaves, and water stood on the concrete through the winter. And nobody had measured the traffic for"
    " fifteen years, in which the lorries had become half as heavy again as those the bridge was built for."
)
INSTRUCTION = (
    "You sort letters that arrive at a town hall. Read the letter and answer with the name of one office: Roads, Water,"
    " Taxes, Schools or Parks. Letters about potholes, pavements, bridges and street lamps go to Roads. Letters about pipes,"
    " drains, meters and floods go to Water. Letters about bills, fees and refunds go to Taxes. Letters about teachers,"
    " buses and lunches go to Schools. Letters about trees, benches, playgrounds and dogs go to Parks. If a letter fits two"
    " offices, choose the one that has to act first.\n\nLetter: "
)
LETTERS = (
    "There is a hole in the pavement outside number nine.",
    "My bill went up again although we were away all winter.",
    "The swings are broken and a child was hurt.",
    "The school bus was late every day this week.",
    "Brown water comes out of the tap in the kitchen.",
    "A tree fell on the bench by the pond.",
    "The lamp at the crossing has been dark since March.",
    "Please send me a form for a refund.",
)

LONG_TEXTS = (
    f"{LIGHTHOUSE}\n\nOne night in November",
    f"{MARKET}\n\nThe talk was mostly about",
    f"{LIGHTHOUSE}\n\n{MARKET}\n\nWhat the two places had in common was",
    f"{BRIDGE}\n\n{MARKET}\n\nThe council therefore decided to",
    f"{BRIDGE}\n\n{LIGHTHOUSE}\n\n{MARKET}\n\nIn short, the report says that",
    f"{MARKET}\n\n{BRIDGE}\n\n{LIGHTHOUSE}\n\n{' '.join(LETTERS)}\n\nThe same in one sentence:",
)

QUESTIONS = (
    ("", "What is the tallest mountain in the world?"),
    ("", "Write one sentence about rain."),
    ("You are a pirate and answer in character.", "How do I boil an egg?"),
    ("You are a terse assistant. Answer in at most five words.", "Why is the sky blue?"),
    ("", "List three fruits, separated by commas."),
    ("You correct spelling mistakes and return only the text.", "I recieved you're leter yesturday."),
    ("", "Explain recursion to a ten-year-old."),
    ("You are a patient teacher of mathematics.", "What is 17 times 3? Show the steps."),
    ("", f"Summarise this in one sentence:\n\n{BRIDGE}"),
    ("You are an editor.", f"Give this text a title:\n\n{LIGHTHOUSE}"),
)


def plain_texts() -> list[str]:
    """Texts that are not conversations; the last ones share ``INSTRUCTION``."""
    sorting = [f"{INSTRUCTION}{letter}\nOffice:" for letter in LETTERS]
    return [*WORDS, *SENTENCES, *OTHER_SCRIPTS, *LONG_TEXTS, *sorting]


def conversations() -> list[list[dict[str, object]]]:
    """Conversations of one or two messages."""
    chats: list[list[dict[str, object]]] = []
    for system, user in QUESTIONS:
        opening: list[dict[str, object]] = [{"role": "system", "content": system}] if system else []
        chats.append([*opening, {"role": "user", "content": user}])
    return chats


def prompts(tokenizer: ModelTokenizer) -> list[tuple[int, ...]]:
    """All of them as token ids."""
    texts = [*plain_texts(), *(tokenizer.render_chat(chat) for chat in conversations())]
    return [tuple(tokenizer.encode(text, add_special_tokens=False)) for text in texts]


def new_tokens(index: int) -> int:
    """Cap of the answer to a prompt."""
    return LONG_ANSWER_TOKENS if index in LONG_ANSWERS else NEW_TOKENS[index % len(NEW_TOKENS)]
