"""Common English words and the sentences made from them: prompt text that a language model finds unremarkable.

Every word is one that byte-pair vocabularies hold whole, so a word with its leading space is usually one token.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NOUNS = _words(
    """
    air animal answer apple arm army art author baby bag ball bank base bath bear bed bell bird board boat body book
    bottle box boy bread bridge brother building business cake camera camp car card case cat cause cell center chair
    chance child church circle city class clock cloth cloud coast coat code coffee college color community company
    computer corner country couple course court cover cow crowd cup daughter day desk dinner doctor dog door dream
    dress drink driver duty ear earth edge egg engine evening event eye face fact family farm father field figure film
    finger fire fish floor flower food foot forest form friend fruit game garden gate girl glass goal gold grass group
    guard guest hall hand hat head heart hill history home horse hospital hotel hour house idea island job journey
    judge key kind king kitchen knife lady lake land language law leader leaf leg lesson letter level library light
    line list lunch machine man map market master match meal meeting member message middle milk mind minute mirror
    moment money month moon morning mother mountain mouth movie music name nation neck night noise nose note number
    ocean office oil owner page paint pair paper parent park part party path pen person phone picture piece place plan
    plane plant plate player pocket poem police pool post power price prince problem program question rain reason
    record report rest result rice ring river road rock room root rule salt school science sea season seat secret
    shape ship shirt shoe shop shoulder side sign silver sister skin sky sleep smile snow soldier son song sound soup
    space spring square stage star station step stone store storm story street student subject sugar summer sun
    surface table teacher team test theory thing ticket time title tooth town track trade train travel tree trip truck
    truth uncle value village visitor voice wall war watch water wave way week weight wheel wife wind window winter
    wine winner woman wood word work worker world writer yard year
    """
)
ADJECTIVES = _words(
    """
    able angry bad big black blue brave bright broken brown busy calm careful cheap clean clear cold common cool dark
    dead deep different difficult dry early easy empty equal fair famous far fast final fine first flat foreign free
    fresh full funny general gentle glad good gray great green happy hard heavy high honest hot huge hungry important
    kind large last late lazy light little local lonely long loud low main modern narrow near neat new nice old open
    past perfect plain poor popular private proud public quick quiet rare ready real red rich right rough round royal
    sad safe serious sharp short silent simple single slow small smart smooth soft special square steady strange
    strong sweet tall thick thin tiny tired true useful usual warm weak wet white whole wide wild wise wonderful yellow
    young
    """
)
VERBS = _words(
    """
    accepted added asked avoided beat began bought broke brought built called carried caught changed checked chose
    cleaned closed collected counted covered crossed cut described discovered drew drove entered expected explained
    felt filled finished followed forgot found gave got heard held helped hid hit hurt imagined improved joined kept
    knew learned left lifted liked loved made marked measured met missed moved needed noticed offered opened ordered
    painted passed picked placed planned prepared promised protected pulled pushed put raised reached read received
    remembered repeated replaced saved saw sent served shared showed shut sold started stopped studied taught thought
    threw told took touched turned understood used visited wanted washed watched welcomed won wrote
    """
)
PREPOSITIONS = _words(
    """
    about above across after against along around at before behind below beside by for from in into near on over past
    through toward under with without
    """
)
DETERMINERS = (
    "the",
    "the",
    "the",
    "a",
    "this",
    "that",
    "every",
    "one",
    "another",
    "some",
    "our",
    "their",
    "his",
    "her",
)
CONNECTORS = ("and", "but", "while", "because", "so", "when", "until", "although")


def sentence_pieces(rng: Random) -> Iterator[str]:
    """An endless stream of pieces that join (with nothing between them) to sentences: `` The``, `` dog``, ..., ``.``"""
    while True:
        words = _clause(rng)
        if rng.random() < 0.4:
            words += [_one_of(CONNECTORS, rng), *_clause(rng)]
        words[0] = words[0].capitalize()
        for word in words:
            yield f" {word}"
        yield "."


def topic_pieces(serial: int, nouns: int = 2) -> tuple[str, ...]:
    """Nouns and a colon that count: different for ``len(NOUNS)**nouns`` serials, the first noun for ``len(NOUNS)``."""
    pieces = []
    for _ in range(nouns):
        serial, digit = divmod(serial, len(NOUNS))
        pieces.append(f" {NOUNS[digit]}")
    return (*pieces, ":")


def _clause(rng: Random) -> list[str]:
    words = [*_noun_phrase(rng), _one_of(VERBS, rng), *_noun_phrase(rng)]
    if rng.random() < 0.6:
        words += [_one_of(PREPOSITIONS, rng), *_noun_phrase(rng)]
    return words


def _noun_phrase(rng: Random) -> list[str]:
    phrase = [_one_of(DETERMINERS, rng)]
    if rng.random() < 0.6:
        phrase.append(_one_of(ADJECTIVES, rng))
    return [*phrase, _one_of(NOUNS, rng)]


def _one_of(words: tuple[str, ...], rng: Random) -> str:
    return words[int(rng.random() * len(words))]
