"""Drawing the rows of one filling: values around what a query asks for, groups, keys, ties and NULLs."""

from __future__ import annotations

import random

from helpers.text_to_sql.conditions import WORDS, Literal
from helpers.text_to_sql.reference import Reference
from helpers.text_to_sql.tables import Column

NUM_ROWS = 12  # of the first table, one more in each further one; more where LIMIT or HAVING asks for it


class RowGenerator:
    """Draws the rows of one filling from one seeded generator."""

    def __init__(self, rng: random.Random, reference: Reference) -> None:
        self.rng, self.reference = rng, reference
        literals = [c.literal for conditions in reference.conditions.values() for c in conditions]
        self.texts = [literal for literal in literals if isinstance(literal, str)]
        num_rows = max(NUM_ROWS, reference.limit * 3, reference.group_size * 4 + 2)
        # HAVING counts the rows that meet WHERE: as many as it needs do, and others are there for a dropped WHERE.
        self.num_meeting = num_rows if reference.group_size and rng.random() < 0.5 else 0
        num_rows += NUM_ROWS // 2 if reference.group_size and "WHERE" in reference.clauses else 0
        # Of different sizes: COUNT(*) of another table is another number.
        self.num_rows = {table: num_rows + i for i, table in enumerate(reference.schema)}
        self.keys = self._keys(4 if reference.group_size else num_rows * 2 // 3)
        self.pools: dict[Column, list[Literal]] = {}
        # What helps one reference harms another (ties, rows that meet the conditions): the search sees which.
        self.distinct, self.one_to_one = rng.random() < 0.6, bool(reference.sorted) and rng.random() < 0.6
        self.eager = rng.choice((0.3, 0.6, 0.9))
        self.null_share = rng.choice((0.1, 0.3))
        self.dangling_share = rng.choice((0.1, 0.3) if reference.has_outer_join else (0, 0, 0.1, 0.3))

    def _keys(self, count: int) -> list[Literal]:
        """What joined columns hold; few where HAVING asks for many rows of each."""
        asked = []
        for column in sorted(self.reference.joined, key=lambda column: (column.table, column.name)):
            for condition in self.reference.conditions.get(column, ()):
                asked += [*condition.value_inside(self.rng, column.numeric), condition.literal]
        asked = [value for value in asked if value is not None]
        return list(dict.fromkeys(asked + self.rng.sample(range(1, 90), count)))[:count]

    def table(self, columns: list[Column]) -> list[tuple]:
        rows = [self._row(columns, n < self.num_meeting) for n in range(self.num_rows[columns[0].table])]
        for i, column in enumerate(columns):
            sorts, joins = column in self.reference.sorted, column in self.reference.joined
            if column.key or (sorts and self.distinct) or (joins and self.one_to_one):
                self._make_distinct(rows, i, column)
            elif column in self.reference.grouped and self.reference.group_size and not self.reference.joined:
                self._make_groups(rows, i, column)
        return [tuple(row) for row in rows]

    def _row(self, columns: list[Column], meeting: bool) -> list[Literal]:
        """At random, or `meeting` every condition, or all of them but one (what a wrong or dropped one lets in)."""
        row, reference = [self._value(column) for column in columns], self.reference
        asked = [i for i, c in enumerate(columns) if reference.conditions.get(c) and c not in reference.joined]
        kind = self.eager * 0.75 if meeting else self.rng.random()
        spared = self.rng.choice(asked) if asked and kind < self.eager / 2 else None
        for i in asked if kind < self.eager else ():
            condition, numeric = self.rng.choice(reference.conditions[columns[i]]), columns[i].numeric
            if i != spared:
                row[i : i + 1] = condition.value_inside(self.rng, numeric) or row[i : i + 1]
            elif self.rng.random() < 0.5:
                row[i] = self.rng.choice(condition.values_around(self.rng, numeric))
        return row

    def _value(self, column: Column) -> Literal:
        required = column.key or column.required
        if column in self.reference.nullable and not required and self.rng.random() < self.null_share:
            return None
        if column in self.reference.joined:
            if not column.key and self.rng.random() < self.dangling_share:
                nothing = self.reference.has_outer_join and not required
                return None if nothing and self.rng.random() < 0.5 else self.rng.randint(90, 99)
            return self._pick(self.keys)
        return self._pick(self.pools.get(column) or self.pools.setdefault(column, self._pool(column)))

    def _pick(self, pool: list[Literal]) -> Literal:
        return pool[int(len(pool) * self.rng.random() ** 1.3)]  # unevenly: groups get sizes, DISTINCT something to do

    def _pool(self, column: Column) -> list[Literal]:
        """The literals and their neighbours, then a few values around them, or words."""
        conditions = self.reference.conditions.get(column, ())
        near = [value for c in conditions for value in c.values_around(self.rng, column.numeric)]
        count = self.rng.choice((3, 4, 6, 9))
        if not column.numeric and column not in self.reference.summed:
            return near + self.rng.sample(WORDS, count) + self.rng.sample(self.texts, min(len(self.texts), 1))
        middle = next((int(v) for v in near if not isinstance(v, str)), self.rng.choice((10, 60, 300, 1900)))
        spread = max(6, int(abs(middle) * self.rng.choice((0.02, 0.3))))
        far = [middle + self.rng.randint(-spread, spread) for _ in range(count)]
        whole = column.whole or not column.numeric
        return near + [v if whole else v + self.rng.randint(0, 9) / 10 for v in far]

    def _make_distinct(self, rows: list[list[Literal]], i: int, column: Column) -> None:
        if column in self.reference.joined:
            for row, key in zip(rows, self.keys):
                row[i] = key
        seen: set[Literal] = {None}  # NULLs are left out: each is different from every other
        for n, row in enumerate(rows):
            while row[i] in seen and row[i] is not None:
                text = isinstance(row[i], str)
                row[i] = f"{self.rng.choice(WORDS)} {n}" if text else row[i] + self.rng.randint(-9, 9) + n % 2
            seen.add(row[i])

    def _make_groups(self, rows: list[list[Literal]], i: int, column: Column) -> None:
        """Group sizes around HAVING's number: on it, one over, one under, well over."""
        n = self.reference.group_size
        literals = [c.literal for c in self.reference.conditions.get(column, ()) if c.literal is not None]
        names = (literals + self.rng.sample(range(1, 99) if column.numeric else WORDS, 4))[:4]
        self.rng.shuffle(names)
        num_grouped = self.num_meeting or len(rows)
        values = [name for name, size in zip(names, (n, n + 1, n - 1, len(rows))) for _ in range(size)][:num_grouped]
        self.rng.shuffle(values)
        values += [self.rng.choice(names) for _ in rows[num_grouped:]]
        for row, value in zip(rows, values):
            row[i] = value
