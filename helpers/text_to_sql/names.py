"""Names and values that a model can only copy: pools of real words, a fifth held out, and words invented on the spot.

Why so wide: trained on a few thousand names a small model learns to recognise them (.35 right) instead of copying
what stands in the prompt (.01 right on new ones); with invented words from the first step it learns to copy.
"""

from __future__ import annotations

import hashlib
import random
from functools import cache, lru_cache
from pathlib import Path

from helpers.text_to_sql.lexicon import CATEGORY_VALUES, NUMBER_WORDS
from helpers.text_to_sql.phrases import template_words

DATA = Path(__file__).resolve().parents[2] / "data" / "text_to_sql"
SYLLABLES = """ba be bi bo bu ka ke ki ko ku da de di do du fa fe fi ga go gu ha he hi ho ja jo la le li lo lu ma me mi
mo mu na ne ni no nu pa pe pi po ra re ri ro ru sa se si so su ta te ti to tu va ve vi vo wa we wi xa xi ya yo za ze zo
bra cle dro fli gre plo sta tri sha cho thi que orn ast eld ing ack olt umb arp ist ent""".split()
SQL_WORDS = """add all alter and as asc begin between by case check collate commit constraint create cross database
default delete desc distinct drop else end escape except exists for foreign from full group having if in index inner
insert intersect into is isnull join left like limit natural not nothing notnull null offset on or order outer over
primary
references returning right row rows select set table then to transaction union unique update using values view when
where with reference""".split()  # "reference", since its plural is SQL's own
PUNCTUATION = "#$%&*+/;@[\\]^`{|}~()=<>!:?.,-"
ACCENTED = "éèüöäñøåçłšžíóúâêôãßœğı"


@lru_cache
def reserved() -> frozenset[str]:
    """Words that are never drawn as names: SQL's own and those that the wordings use."""
    return template_words() | frozenset(SQL_WORDS) | frozenset(NUMBER_WORDS.values())


@lru_cache
def pool(kind: str) -> tuple[str, ...]:
    """The committed words of `kind`: "nouns" (lower case) or "names" (capitalised)."""
    words = (DATA / f"{kind}.txt").read_text(encoding="utf-8").split()
    return tuple(w for w in words if w.lower() not in reserved())


@cache
def held_out(word: str) -> bool:
    """Whether neither pretraining nor the training rows may show this word: a fifth, by hash; plurals with it."""
    return hashlib.sha256(word.lower().rstrip("s").encode()).digest()[0] % 5 == 0


@lru_cache
def _held_out_words() -> frozenset[str]:
    return frozenset(w.lower() for kind in ("nouns", "names") for w in pool(kind) if held_out(w))


def plural(noun: str) -> str:
    """The English plural, by the three rules that cover almost every noun."""
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


class Namer:
    """Draws names and values; `used` collects the pool words of the example being made.

    Args:
        rng: the source of randomness.
        seen_only: never draw a held-out word (training); else the whole pool.
    """

    def __init__(self, rng: random.Random, seen_only: bool):
        self.rng, self.seen_only, self.used = rng, seen_only, set()

    def _draw(self, kind: str) -> str:
        while True:
            word = self.rng.choice(pool(kind))
            if not (self.seen_only and held_out(word)):
                self.used.add(word)
                return word

    def noun(self) -> str:
        return self._draw("nouns")

    def name(self) -> str:
        return self._draw("names")

    def invented(self) -> str:
        """A fresh word: syllables, halves of two nouns, a clipped noun, or letters; never a held-out one."""
        rng = self.rng
        while True:
            way = rng.random()
            if way < 0.4:
                word = "".join(rng.choice(SYLLABLES) for _ in range(rng.randint(2, 3)))
            elif way < 0.7:
                a, b = rng.choice(pool("nouns")), rng.choice(pool("nouns"))
                word = a[: rng.randint(2, max(2, len(a) - 2))] + b[-rng.randint(2, max(2, len(b) - 2)) :]
            elif way < 0.9:
                a = rng.choice(pool("nouns"))
                start = rng.randint(0, 2)
                word = a[start : start + rng.randint(3, 6)]
            else:
                word = "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(2, 6)))
            word = word[:10]
            if len(word) > 1 and word not in reserved() and not {word, plural(word)} & _held_out_words():
                return word

    def strange(self) -> str:
        """A word in any script, so that no byte of UTF-8 stays unseen."""
        rng = self.rng
        way = rng.random()
        if way < 0.2:
            return f"{self.invented()}{rng.choice(PUNCTUATION)}{self.invented()}"
        if way < 0.5:
            word = list(self.invented())
            word[rng.randrange(len(word))] = rng.choice(ACCENTED)
            return "".join(word)
        top = rng.choice([0x7FF, 0xFFFF, 0x10FFFF])
        letters = [chr(rng.randint(0xA1, top)) for _ in range(rng.randint(1, 3))]
        return "".join(c for c in letters if not 0xD800 <= ord(c) <= 0xDFFF) or "ø"

    def identifier(self, wild: bool) -> list[str]:
        """The words of a table's or column's name; a compound now and then."""
        one = self.invented if wild else self.noun
        return [one(), one()] if self.rng.random() < (0.3 if wild else 0.2) else [one()]

    def value(self, pool_name: str, wild: bool) -> str:
        """A text value of the pool that a column asks for; "any" is a mixture."""
        rng = self.rng
        if rng.random() < 0.03:
            return self.strange()
        if pool_name in CATEGORY_VALUES and rng.random() < 0.7:
            return rng.choice(CATEGORY_VALUES[pool_name])
        if wild and rng.random() < 0.6:
            words = [self.invented() for _ in range(rng.choice((1, 1, 2)))]
            return rng.choice((str.lower, str.title, str.upper if len(words) == 1 else str.title))(" ".join(words))
        if pool_name == "any":
            pool_name = rng.choice(("name", "person", "title", "lower", "code", "name"))
        if pool_name == "code" or rng.random() < 0.03:
            letters = "".join(rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(rng.randint(1, 3)))
            return f"{letters}{rng.choice(('', '-', ' '))}{rng.randint(1, 999)}"
        if pool_name == "person":
            return rng.choice((f"{self.name()} {self.name()}", self.name(), f"{self.name()[0]}. {self.name()}"))
        if pool_name == "title":
            return rng.choice((
                self.name(), self.noun().title(), f"{self.noun().title()} {self.noun().title()}",
                f"{self.name()} {self.noun().title()}", f"{self.noun().title()} of {self.name()}",
                f"The {self.noun().title()}",
            ))  # fmt: skip
        if pool_name == "lower" or pool_name in CATEGORY_VALUES:
            return rng.choice((self.noun(), self.noun(), f"{self.noun()} {self.noun()}", self.noun().title()))
        return rng.choice((self.name(), self.name(), self.name(), f"{self.name()} {self.name()}"))
