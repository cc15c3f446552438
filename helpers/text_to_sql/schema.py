"""Tables to ask about: columns with a meaning a person would expect, or with none, in every style of naming."""

from __future__ import annotations

from dataclasses import dataclass, field

from helpers.text_to_sql.lexicon import ANY_NUMBER, ANY_REAL, ANY_TEXT, NUMBERS, SUBJECTS, TEXTS, Concept
from helpers.text_to_sql.names import Namer, plural


@dataclass(frozen=True)
class Column:
    name: str
    type: str
    spoken: str
    concept: Concept
    label: bool = False  # it names its row: "which ships" asks for it

    @property
    def is_text(self) -> bool:
        return self.concept.type == "TEXT"


@dataclass
class Table:
    name: str
    one: str  # as spoken: "ship"
    many: str  # "ships"
    columns: list[Column] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)  # key columns of joins: in CREATE TABLE, never asked for

    @property
    def ddl(self) -> str:
        return f"CREATE TABLE {self.name} ({', '.join(self.keys + [f'{c.name} {c.type}' for c in self.columns])})"

    @property
    def numbers(self) -> list[Column]:
        return [c for c in self.columns if not c.is_text]

    @property
    def texts(self) -> list[Column]:
        return [c for c in self.columns if c.is_text]

    @property
    def label(self) -> Column | None:
        return next((c for c in self.columns if c.label), None)


@dataclass
class Schema:
    """`tables` in the order of the context; questions are about `main`, joins go from it to `parent`."""

    tables: list[Table]
    main: Table
    wild: bool
    parent: Table | None = None
    link: tuple[str, str] | None = None  # main's key column, parent's key column
    words: frozenset[str] = frozenset()  # the pool words in its names

    @property
    def context(self) -> str:
        return "; ".join(table.ddl for table in self.tables)


class _Maker:
    """The style of one schema (letter case, type names, wild or not) and the names already taken in it."""

    def __init__(self, namer: Namer, wild: bool):
        self.namer, self.rng, self.wild = namer, namer.rng, wild
        self.themed = not wild and self.rng.random() < 0.6
        self.case = self.rng.choices(("snake", "title", "upper", "camel"), (90, 4, 3, 3))[0]
        self.types = {"TEXT": "TEXT", "INTEGER": "INTEGER", "REAL": "REAL"}
        if self.rng.random() < 0.25:
            self.types |= {"TEXT": "VARCHAR", "REAL": self.rng.choice(("REAL", "DECIMAL"))}
        self.tables: set[str] = set()
        self.columns: set[str] = set()

    def spell(self, words: list[str]) -> str:
        if self.case == "camel":
            return words[0] + "".join(w.title() for w in words[1:])
        return {"snake": str.lower, "upper": str.upper, "title": str.capitalize}[self.case]("_".join(words))

    def column(self, kind: str, known: float) -> Column:
        """A text or number column; `known` is the chance that its name is one of the lexicon's."""
        rng, lexicon = self.rng, TEXTS if kind == "text" else NUMBERS
        while True:
            if rng.random() < known:
                word = rng.choice(list(lexicon))
                words, concept, label = word.split("_"), lexicon[word], word in ("name", "title")
                if not label and rng.random() < 0.08:  # "salmon_price": a price, but nobody says "cheaper" of it
                    words = self.namer.identifier(self.wild)[:1] + words
                    concept = Concept(concept.type, concept.low, concept.high, values=concept.values)
            else:
                words, label = self.namer.identifier(self.wild), False
                concept = ANY_TEXT if kind == "text" else rng.choice((ANY_NUMBER, ANY_NUMBER, ANY_REAL))
            name = self.spell(words)
            if name.lower() not in self.columns:
                self.columns.add(name.lower())
                return Column(name, self.types[concept.type], " ".join(words), concept, label)
            known *= 0.8

    def table(self, size: int) -> Table:
        rng = self.rng
        while True:
            words = [rng.choice(SUBJECTS)] if self.themed else self.namer.identifier(self.wild)
            one, many = " ".join(words), " ".join([*words[:-1], plural(words[-1])])
            name = self.spell([*words[:-1], plural(words[-1])] if rng.random() < 0.3 else words)
            if name.lower() not in self.tables | self.columns and one not in self.tables:
                break
        self.tables |= {name.lower(), one}
        made = Table(name, one, many)
        known = 0.8 if self.themed else 0.15 if self.wild else 0.35
        if rng.random() < (0.6 if self.themed else 0.25):
            said = rng.choices(["name", "title", f"{one} name", one], (60, 15, 10, 15))[0]
            label = self.spell(said.split())
            if label.lower() not in self.columns | self.tables:
                self.columns.add(label.lower())
                made.columns.append(Column(label, self.types["TEXT"], said, TEXTS["name"], True))
        for kind in ["number", "text"] + [rng.choice(("number", "text")) for _ in range(size - 2)]:
            column = self.column(kind, known)
            if not (column.label and made.label):
                made.columns.append(column)
        if not made.texts:
            made.columns.append(self.column("text", 0.0))
        rng.shuffle(made.columns)
        return made


def make_schema(namer: Namer, wild: bool, joined: bool = False, distractors: int = 0) -> Schema:
    """One table to ask about (two with a key when `joined`), and `distractors` more that nobody asks about.

    `wild` schemas take invented words as names; the others real ones.
    """
    rng, before = namer.rng, namer.used
    namer.used = set()
    maker = _Maker(namer, wild)
    main = maker.table(rng.choice((2, 2, 3, 3, 4)))
    schema = Schema([main], main, wild)
    if joined:
        schema.parent = parent = maker.table(rng.choice((2, 2, 3)))
        long = [*parent.one.split(), "id"]
        own = long if rng.random() < 0.5 else ["id"]
        schema.link = (maker.spell(long), maker.spell(own))
        main.keys, parent.keys = [f"{schema.link[0]} INTEGER"], [f"{schema.link[1]} INTEGER"]
        schema.tables.insert(rng.randint(0, 1), parent)
    for _ in range(distractors):
        if rng.random() < 0.7:
            maker.columns.clear()  # the same column in two tables is what makes a distractor distract
        schema.tables.insert(rng.randint(0, len(schema.tables)), maker.table(rng.choice((2, 3, 4))))
    schema.words = frozenset(namer.used)
    namer.used = before
    return schema
