"""Questions, tables and SQL in the manner of sql-create-context, drawn from a seed (notebook 00).

The policy that every example keeps, so that each reference query runs in SQLite and means what it says:
identifiers as CREATE TABLE spells them, never quoted, never a keyword; text values in single quotes, in the
question's own spelling and letter case; numbers bare, compared with INTEGER and REAL columns only; `!=`, never `<>`;
"which ships" asks for the column that names them, "everything about" for *; joins by aliases T1 and T2.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from helpers.text_to_sql import phrases
from helpers.text_to_sql.handwritten import handwritten_forms, masked
from helpers.text_to_sql.lexicon import NUMBER_WORDS
from helpers.text_to_sql.names import Namer, held_out, plural
from helpers.text_to_sql.schema import Column, Schema, make_schema


@dataclass(frozen=True)
class Example:
    """One question about some tables: `context` (CREATE TABLE ...), `question`, `answer` (SQL), its kind,
    a noun phrase that restates the question in its own names, and the pool words in all of it."""

    id: str
    context: str
    question: str
    answer: str
    kind: str = ""
    restated: str = ""
    words: tuple[str, ...] = ()

    @property
    def unseen(self) -> bool:
        """Whether any name or value in it was held out of training."""
        return any(held_out(word) for word in self.words)


@dataclass(frozen=True)
class Condition:
    sql: str
    post: str  # after the noun: " whose city is Oslo", " older than 5"
    verb: str  # after the noun as a sentence: " are older than 5"
    clause: str | None  # "city is Oslo", when it can share a "whose" with others


KINDS = {
    "select": 14, "label": 12, "star": 3, "count": 14, "distinct": 3, "count_distinct": 3, "AVG": 4, "SUM": 3, "MAX": 4,
    "MIN": 4, "two": 2, "sorted": 6, "best": 6, "best_label": 5, "top": 3, "top_label": 3, "group_count": 6,
    "group_agg": 6, "having": 4, "common": 4,
}  # fmt: skip
CONDITIONS = {"select": (1, 2, 2, 1, 3), "label": (1, 1, 2, 1, 3), "star": (1, 2, 1), "count": (1, 1, 2, 0, 3)}
SHORTENED = 0.12  # how often a column of several words is called by one of them
UNNAMED = 0.3  # how often a condition leaves its column out, where the value alone will do
FEW_CONDITIONS = (0, 0, 0, 1, 1, 2)


def _number(rng: random.Random, column: Column) -> float | int:
    low, high = column.concept.low, column.concept.high
    value = rng.uniform(low, high)
    if column.concept.type == "REAL" and rng.random() < 0.4:
        return round(value, rng.choice((1, 1, 2)))
    value = round(value)
    if (value > 100 and high < 1950) or value > 3000:  # people ask for round numbers
        value = round(value, -rng.choice((0, 1, 2)))
    return value


class _Asker:
    """Turns a schema into questions: SQL and words side by side."""

    def __init__(self, namer: Namer, schema: Schema, joined: bool, shorten: float):
        self.namer, self.rng, self.schema, self.joined, self.shorten = namer, namer.rng, schema, joined, shorten
        self.main, self.parent = schema.main, schema.parent if joined else None
        self.adjective = ""  # a value that stands before the noun: "oolong tins"

    # ---- names
    def sql_name(self, column: Column) -> str:
        if not self.parent:
            return column.name
        return f"{'T1' if column in self.main.columns else 'T2'}.{column.name}"

    def say(self, column: Column) -> str:
        """The column as spoken; one of the parent table's is spoken with its table."""
        said = column.spoken if self.rng.random() < 0.85 else column.name
        if self.rng.random() < self.shorten:
            said = self.shortened(column) or said
        if self.parent and column in self.parent.columns:
            return f"{self.parent.one} {said}"
        return said

    def shortened(self, column: Column) -> str | None:
        """A single word of the column's name that no other column and no table has: "honey" for honey_kg."""
        others = " ".join(c.spoken for c in self.columns() if c != column).split()
        taken = {*others, *self.main.many.split(), *self.main.one.split()}
        taken |= {*self.parent.one.split(), *self.parent.many.split()} if self.parent else set()
        words = [w for w in column.spoken.split() if w not in taken and len(w) > 2]
        return self.rng.choice(words) if len(column.spoken.split()) > 1 and words else None

    def many(self, said: str) -> str:
        return said if said.endswith("s") else plural(said)

    def columns(self, text: bool | None = None) -> list[Column]:
        pool = self.main.columns + (self.parent.columns if self.parent else [])
        return [c for c in pool if text is None or c.is_text == text]

    @property
    def source(self) -> str:
        if not self.parent:
            return self.main.name
        foreign, primary = self.schema.link
        return f"{self.main.name} AS T1 JOIN {self.parent.name} AS T2 ON T1.{foreign} = T2.{primary}"

    # ---- conditions
    def literal(self, column: Column, value: str | float) -> tuple[str, str]:
        """(in SQL, in the question)"""
        if not column.is_text:
            return str(value), str(value)
        way = self.rng.random()
        common = value.islower() and value.isascii()
        said = f"'{value}'" if way < 0.25 else f'"{value}"' if way < 0.45 or (common and way < 0.6) else value
        return f"'{value}'", said

    def condition(self, column: Column) -> Condition:
        rng, concept, said = self.rng, column.concept, self.say(column)
        foreign = self.parent is not None and column in self.parent.columns
        name = self.sql_name(column)
        if column.is_text:
            op = "=" if rng.random() < 0.88 else "!="
            value, spoken = self.literal(column, self.namer.value(concept.values, self.schema.wild))
            sql, fill = f"{name} {op} {value}", {"v": spoken, "c": said}
            if op == "=" and concept.post and not foreign and rng.random() < 0.5:
                post = rng.choice(concept.post).format(**fill)
                verb = f" {post[5:]}" if post.startswith("that ") else f" are {post}"
                return Condition(sql, f" {post}", verb, None)
            predicates, short = phrases.TEXT_PREDICATES, phrases.TEXT_SHORT
        else:
            op = rng.choices((">", "<", ">=", "<=", "=", "!=", "BETWEEN"), (28, 22, 12, 10, 12, 4, 12))[0]
            low, high = sorted((_number(rng, column), _number(rng, column)))
            high = high + 1 if high == low else high
            value = low if op == "BETWEEN" else rng.choice((low, high))
            sql = f"{name} BETWEEN {low} AND {high}" if op == "BETWEEN" else f"{name} {op} {value}"
            fill = {"v": str(value), "w": str(high), "c": said}
            predicates, short = phrases.PREDICATES, phrases.SHORT
            ways = []
            if not foreign and op in (">", "<"):
                ways += [f"{a} {{v}}" for a in (concept.more if op == ">" else concept.less)]
            if not foreign and concept.counted and op in phrases.COUNTED:
                ways += phrases.COUNTED[op]
            if not foreign and concept.low == 1900 and concept.more and op in phrases.YEARS:
                verb = concept.more[0].split()[0]
                ways += phrases.YEARS[op] + tuple(
                    f"{verb} {w}" for w in {"=": ("in {v}",), ">=": ("in {v} or later", "since {v}"),
                                            "<=": ("in {v} or earlier", "no later than {v}"),
                                            "BETWEEN": ("between {v} and {w}", "from {v} to {w}")}.get(op, ())
                )  # fmt: skip
            if ways and rng.random() < 0.6:
                post = rng.choice(ways).format(**fill)
                first, rest = post.split(" ", 1)
                verb = {"that": f" {rest}", "with": f" have {rest}", "having": f" have {rest}"}.get(
                    first, f" are {post}"
                )
                return Condition(sql, f" {post}", verb, None)
        predicate = rng.choice(predicates[op]).format(**fill)
        clause = f"{said} {predicate}"
        opening = rng.choice(phrases.OPEN)
        if opening in ("whose", "where the", "where"):
            post = f" {opening} {clause}"
            return Condition(sql, post, post, clause)
        post = f" {opening} {said} {rng.choice(short[op]).format(**fill)}"
        first, rest = post[1:].split(" ", 1)
        verb = (
            f" have {rest}" if first in ("with", "having") else f" {rest}" if first == "that" else f" have {rest[5:]}"
        )
        return Condition(sql, post, verb, clause)

    def where(self, count: int, avoid: tuple[Column, ...] = ()) -> tuple[str, str, str]:
        """(" WHERE ...", how it follows the noun, how it follows as a sentence) of `count` conditions."""
        rng = self.rng
        pool = [c for c in self.columns() if c not in avoid or rng.random() < 0.2]
        if self.parent and count and not any(c in self.parent.columns for c in avoid):
            own = [c for c in self.parent.columns if c in pool]  # a join that no column needs is no join
            pool = own[:1] + [c for c in rng.sample(pool, len(pool)) if c not in own[:1]] if own else pool
            chosen = pool[:count]
            rng.shuffle(chosen)
        else:
            chosen = rng.sample(pool, min(count, len(pool)))
        if not chosen:
            return "", "", ""
        joiner = rng.choice(("AND", "AND", "OR"))
        if len(chosen) == 2 and joiner == "OR" and chosen[0].is_text and rng.random() < 0.4:
            return self._either(chosen[0])
        if len(chosen) == 1 and self.rng.random() < UNNAMED and self.is_plain(chosen[0]):
            return self._unnamed(chosen[0])
        made = [self.condition(c) for c in chosen]
        sql = " WHERE " + f" {joiner} ".join(c.sql for c in made)
        if len(made) == 1:
            return sql, made[0].post, made[0].verb
        word = {"AND": rng.choice((" and", " and", " and", " but only")), "OR": rng.choice((" or", " or", " or else"))}
        word = word[joiner] if len(made) == 2 else f" {joiner.lower()}"
        if all(c.clause for c in made) and rng.random() < 0.7:
            opening = rng.choice((" whose ", " where ", " where the "))
            either = "either " if joiner == "OR" and opening == " where " and rng.random() < 0.3 else ""
            said = opening + either + f"{word.replace(' but only', ' and')} ".join(c.clause for c in made)
            return sql, said, said
        if word == " but only":
            word = " and"
        return sql, word.join(c.post for c in made), made[0].verb + "".join(word + c.post for c in made[1:])

    def is_plain(self, column: Column) -> bool:
        """Whether a value alone says which column is meant: the only text of the main table, its label aside."""
        return [c for c in self.main.texts if not c.label] == [column]

    def _unnamed(self, column: Column) -> tuple[str, str, str]:
        """ "oolong tins", "tins from Oslo": the value without its column."""
        value, spoken = self.literal(column, self.namer.value(column.concept.values, self.schema.wild))
        sql = f" WHERE {self.sql_name(column)} = {value}"
        if self.rng.random() < 0.4:
            self.adjective = spoken
            return sql, "", ""
        post = self.rng.choice((" in {v}", " at {v}", " from {v}", " by {v}", " of {v}", " with {v}")).format(v=spoken)
        return sql, post, f" are there{post}"

    def _either(self, column: Column) -> tuple[str, str, str]:
        """city is Oslo or Rome: two values of one column."""
        values = [self.literal(column, self.namer.value(column.concept.values, self.schema.wild)) for _ in range(2)]
        name, said = self.sql_name(column), self.say(column)
        both = " or ".join(v[1] for v in values)
        post = self.rng.choice((f" whose {said} is {both}", f" whose {said} is either {both}", f" with {said} {both}",
                                f" where the {said} is {both}"))  # fmt: skip
        return f" WHERE {name} = {values[0][0]} OR {name} = {values[1][0]}", post, post

    # ---- whole questions
    def ask(self, kind: str) -> tuple[str, str, str] | None:
        """(SQL, question, restated noun phrase) of one kind, or None where this schema can't ask it."""
        rng, main = self.rng, self.main
        fill: dict[str, str] = {"ts": main.many, "t": main.one, "Ts": main.many.capitalize()}
        if " " in main.many and rng.random() < 0.12:  # "tins" for tea_tins
            fill = {k: words.split()[-1] for k, words in fill.items()}
        elif rng.random() < 0.1:
            fill |= {"ts": main.name if main.name.lower().endswith("s") else main.many}
        base = kind.removesuffix("_label")
        group = order = None
        tail, distinct = "", ""
        if kind in ("label", "best_label", "top_label"):
            if not main.label:
                return None
            projection = [main.label]
        elif kind in ("AVG", "SUM", "MAX", "MIN", "two"):
            projection = [rng.choice(self.columns(text=False))]
        elif kind == "star":
            if self.parent:
                return None
            projection = []
        elif base in ("count", "having", "common", "group_count"):
            projection = []
        else:
            pool = self.columns()
            many = kind in ("select", "sorted") and rng.random() < 0.3 and len(pool) > 2
            projection = rng.sample(pool, 3 if many and len(pool) > 4 and rng.random() < 0.2 else 2 if many else 1)
        if kind in ("group_count", "group_agg", "having", "common"):
            texts = self.columns(text=True)
            group = rng.choice(texts)
            if self.parent and group in main.columns and rng.random() < 0.7:
                group = rng.choice(self.parent.texts)
            if kind == "group_agg":
                projection = [rng.choice(self.columns(text=False))]
        if base in ("sorted", "best", "top"):
            pool = [c for c in self.columns(text=None if base == "sorted" else False) if c not in projection[:1]]
            if not pool:
                return None
            order = rng.choice(pool)
        avoid = tuple(c for c in [*projection, group, order] if c)
        count = rng.choice(CONDITIONS.get(kind, FEW_CONDITIONS))
        if self.parent and not any(c in self.parent.columns for c in avoid):
            count = max(count, 1)
        where, post, verb = self.where(count, avoid)
        if self.parent and "T2." not in where + "".join(self.sql_name(c) for c in avoid):
            return None
        if self.adjective:
            fill |= {k: f"{self.adjective} {fill[k]}" for k in ("ts", "t", "Ts")}
        fill |= {
            "where": post,
            "are": verb or " are there",
            "is": post,
            "for_where": f" for {fill['ts']}{post}" if post else "",
        }
        select = ", ".join(self.sql_name(c) for c in projection)
        said = [self.say(c) for c in projection]
        if said:
            fill["c"], fill["cp"] = said[0], self.many(said[0])
            fill["cs"] = said[0] if len(said) == 1 else ", ".join(said[:-1]) + " and " + said[-1]
            if len(said) == 1 and rng.random() < 0.35 and base in ("select", "sorted", "top"):
                fill["cs"] = fill["cp"]
        if kind == "star":
            select = "*"
        elif kind == "count":
            select = "COUNT(*)"
        elif kind == "distinct":
            distinct = "DISTINCT "
        elif kind == "count_distinct":
            select = f"COUNT(DISTINCT {select})"
        elif kind == "two":
            first, second = rng.sample(list(phrases.AGGREGATES), 2)
            fill |= {k: rng.choice(phrases.AGGREGATES[f]) for k, f in (("a", first), ("b", second))}
            fill["A"] = fill["a"].capitalize()
            select = f"{first}({select}), {second}({select})"
        elif kind in phrases.AGGREGATES:
            select = f"{kind}({select})"
        if order:
            down = rng.random() < 0.55
            if base == "sorted":
                words = phrases.TEXT_ORDER if order.is_text else phrases.ORDER
                fill["order"] = rng.choice(words[down]).format(o=self.say(order))
            else:
                fill |= self._superlative(order, down)
            tail = f" ORDER BY {self.sql_name(order)}{' DESC' if down else ''}"
            if base == "best":
                tail += " LIMIT 1"
            elif base == "top":
                k = rng.choice((2, 3, 3, 4, 5, 5, 6, 7, 8, 10, 10))
                fill["k"] = NUMBER_WORDS[k] if rng.random() < 0.6 else str(k)
                fill["top"] = phrases.RANKS[down][0]
                tail += f" LIMIT {k}"
        if group:
            name = self.sql_name(group)
            fill |= {"g": self.say(group)}
            fill["gp"] = self.many(fill["g"])
            tail = f" GROUP BY {name}"
            if kind == "group_count":
                select = f"{name}, COUNT(*)"
            elif kind == "group_agg":
                function = rng.choice(list(phrases.AGGREGATES))
                fill["agg"] = rng.choice(phrases.AGGREGATES[function])
                select = f"{name}, {function}({select})"
            elif kind == "having":
                op, n = rng.choice(list(phrases.MANY)), rng.randint(2, 9)
                fill["many"] = rng.choice(phrases.MANY[op]).format(n=n if rng.random() < 0.6 else NUMBER_WORDS[n])
                select, tail = name, f"{tail} HAVING COUNT(*) {op} {n}"
            else:
                down = rng.random() < 0.8
                _, fill["most_n"], fill["often"] = phrases.RANKS[down]
                fill["common"] = rng.choice(phrases.COMMON[down])
                select, tail = name, f"{tail} ORDER BY COUNT(*){' DESC' if down else ''} LIMIT 1"
        sql = f"SELECT {distinct}{select} FROM {self.source}{where}{tail}"
        question, restated = self._word(kind, fill)
        return sql, question, restated

    def _superlative(self, order: Column, down: bool) -> dict[str, str]:
        rng, said = self.rng, self.say(order)
        fill = {"most": rng.choice(phrases.MOST[down]), "o": said}
        known = order.concept.most if down else order.concept.least
        if known and not (self.parent and order in self.parent.columns):
            fill["sup"] = rng.choice(known)
        return fill

    def _word(self, kind: str, fill: dict[str, str]) -> tuple[str, str]:
        """A question, and a noun phrase of the same meaning, from the templates that `fill` can fill."""

        def usable(templates: tuple[str, ...]) -> list[str]:
            return [t for t in templates if "{sup}" not in t or "sup" in fill]

        rng = self.rng
        nouns = usable(phrases.NOUN_PHRASES.get(kind, ())) or usable(
            tuple("the {t}{where} with the {most} {o}|the {sup} {t}{where}".split("|"))
            if kind == "best_label"
            else ("the {k} {ts}{where} with the {most} {o}", "the {top} {k} {ts}{where} by {o}")
        )
        short = {"where": "", "for_where": ""} if rng.random() < 0.5 else {}
        restated = rng.choice(nouns).format(**fill | short)
        if rng.random() < 0.5:
            question = rng.choice(usable(phrases.QUESTIONS[kind])).format(**fill)
        else:
            np = rng.choice(nouns).format(**fill)
            question = rng.choice(phrases.ASK).format(np=np)
        question = question[0].upper() + question[1:] if rng.random() < 0.9 else question
        if rng.random() < 0.08:
            question = question.rstrip(".?")
        return question, restated


def generate_group(seed: int, questions: int = 4, seen_only: bool = True, wild_share: float = 0.5,
                   distractors: int | None = None, joined_share: float = 0.22,
                   shortened: float = SHORTENED) -> list[Example]:  # fmt: skip
    """`questions` examples about one schema, all drawn from `seed`.

    Args:
        seen_only: leave held-out words alone, as training must.
        wild_share: the share of schemas whose names are invented words.
        distractors: tables beside the one asked about; None draws mostly 0, up to 5.
        joined_share: the share of schemas with a second table to join (four of five questions then do).
        shortened: how often a column of several words is called by one of them.
    """
    rng = random.Random(seed)
    namer = Namer(rng, seen_only)
    if distractors is None:
        distractors = rng.choices((0, 1, 2, 3, 4, 5), (66, 20, 7, 3, 2, 2))[0]
    joined = rng.random() < joined_share
    schema = make_schema(namer, rng.random() < wild_share, joined, distractors)
    examples: list[Example] = []
    seen: set[str] = set()
    while len(examples) < questions:
        namer.used = set()
        asker = _Asker(namer, schema, joined and rng.random() < 0.8, shortened)
        kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
        made = asker.ask(kind)
        if made is None or made[1] in seen or masked(schema.context, made[1]) in handwritten_forms():
            continue
        seen.add(made[1])
        name = f"{seed}-{len(examples)}"
        words = tuple(sorted(schema.words | namer.used))
        kind = "join" if asker.parent else kind.removesuffix("_label")
        examples.append(Example(name, schema.context, made[1], made[0], kind, made[2], words))
    return examples


def generate(seed: int, seen_only: bool = True, **options) -> Iterator[Example]:
    """Endless single examples, one to a schema, from one seed."""
    rng = random.Random(seed)
    while True:
        yield generate_group(rng.getrandbits(48), 1, seen_only, **options)[0]
