"""Kinds of query: a function for each draws the SQL and what fills its phrasings (data/text_to_sql/phrasings.yaml)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from helpers.text_to_sql.domains import Column, Table
from helpers.text_to_sql.noun_phrases import NounPhrase, Speaker
from helpers.text_to_sql.sql import Query, Ref, linked

NUMBER_WORDS = "zero one two three four five six seven eight nine ten".split()
HIGHEST = ("with the highest {say}", "with the largest {say}", "with the greatest {say}", "that has the highest {say}")
LOWEST = ("with the lowest {say}", "with the smallest {say}", "with the least {say}", "that has the lowest {say}")
LATEST, EARLIEST = (
    ("with the latest {say}", "with the most recent {say}"),
    ("with the earliest {say}", "with the oldest {say}"),
)
COMPARED = {
    ">": ("more than {n}", "over {n}", "more than {n}"),
    ">=": ("at least {n}", "{n} or more", "no fewer than {n}"),
    "<": ("fewer than {n}", "less than {n}", "under {n}"),
    "=": ("exactly {n}",),
}
FEW = (0, 0, 0, 1, 1, 2)


@dataclass
class Asked:
    """A query, the template kind that words it, its slots, and whole questions that its columns bring themselves."""

    query: Query
    template: str
    slots: dict[str, str]
    own: list[str] = field(default_factory=list)
    kinds: set[str] = field(default_factory=set)


def _phrase(s: Speaker, table: Table, count: int, avoid=(), singular=False) -> NounPhrase:
    return s.noun_phrase(table, count, links=0.5, avoid=tuple(c for c in avoid if c), singular=singular)


def _about(phrase: NounPhrase, select: list, **options) -> Query:
    return Query(select, phrase.tables, phrase.where, phrase.either, **options)


def _slots(phrase: NounPhrase) -> dict[str, str]:
    return {"them": phrase.them, "many": phrase.many, "one": phrase.table.one}


def _pick(s: Speaker, table: Table, *tests: Callable[[Column], bool]) -> Column | None:
    columns = [c for c in table.columns if c.is_asked and all(test(c) for test in tests)]
    return s.rng.choice(columns) if columns else None


def _number(c: Column) -> bool:
    return c.is_number and not c.label


def _summed(c: Column) -> bool:
    return _number(c) and not c.is_year and (bool(c.phrases.get("total")) or not c.phrases)


def _averaged(c: Column) -> bool:
    return _number(c) and not c.is_year


def _sortable(c: Column) -> bool:
    return (c.is_number or c.type == "DATE") and not c.label


def _grouping(c: Column) -> bool:
    return not c.label and (c.few or (c.type == "TEXT" and not c.phrases) or "each" in c.phrases)


def which(s: Speaker, table: Table) -> Asked:
    phrase = _phrase(s, table, s.rng.choice((1, 1, 1, 2, 2, 0, 3)))
    asked = Asked(_about(phrase, [Ref(table, table.label)]), "which", _slots(phrase), kinds=phrase.kinds)
    return _predicated(s, asked, phrase, "which_pred")


def count(s: Speaker, table: Table) -> Asked:
    phrase = _phrase(s, table, s.rng.choice((0, 1, 1, 1, 2, 2)))
    asked = Asked(_about(phrase, ["COUNT(*)"]), "count", _slots(phrase), kinds=phrase.kinds)
    return _predicated(s, asked, phrase, "count_pred")


def _predicated(s: Speaker, asked: Asked, phrase: NounPhrase, template: str) -> Asked:
    """ "which films cost more than 5" where the only condition has a verb for it."""
    [condition] = phrase.conditions if len(phrase.conditions) == 1 else [None]
    verb = condition.phrase.split(" ", 1)[1] if condition and condition.is_relative else ""
    # "that Ann Lee directed" has its own subject, "that has", "who is" agree with one row.
    if verb and verb.split()[0].islower() and s.rng.random() < 0.6:
        asked.template, asked.slots["pred"] = template, verb
    return asked


def _projection(s: Speaker, table: Table, most: int, avoid=()) -> tuple[list[Ref], str, str]:
    """(columns, their nouns, their nouns in the plural)."""
    columns = [c for c in table.columns if c.is_asked and c not in avoid]
    chosen = s.rng.sample(columns, min(len(columns), s.rng.randint(1, most)))
    nouns, plurals = [s.noun(c) for c in chosen], []
    for column, noun in zip(chosen, nouns):
        many = s.nouns(column)
        plurals.append(many if noun in many else noun)
    return [Ref(table, c) for c in chosen], _listed(nouns), _listed(plurals)


def _listed(nouns: list[str]) -> str:
    return nouns[0] if len(nouns) == 1 else ", ".join(nouns[:-1]) + " and " + nouns[-1]


def columns(s: Speaker, table: Table) -> Asked | None:
    refs, nouns, plurals = _projection(s, table, 3)
    if len(refs) == 1 and refs[0].column.label:
        return None
    phrase = _phrase(s, table, s.rng.choice((0, 1, 1, 1, 2, 2)), avoid=(r.column for r in refs))
    slots = _slots(phrase) | {"cols": nouns, "cols_s": plurals}
    return Asked(_about(phrase, refs), "columns", slots, kinds=phrase.kinds)


def columns_of_both(s: Speaker, table: Table) -> Asked | None:
    """Columns of a row and of its parent."""
    links = [c for c in table.columns if c.parent in s.schema.tables]
    if not links:
        return None
    parent = s.schema.tables[s.rng.choice(links).parent]
    own, nouns, plurals = _projection(s, table, 2)
    column = _pick(s, parent)
    said = f"{parent.one} {s.noun(column)}" if not column.label or s.rng.random() < 0.5 else parent.one
    phrase = _phrase(s, table, s.rng.choice((0, 1, 1)), avoid=(r.column for r in own))
    joint = ", " if " and " in nouns else " and "
    slots = _slots(phrase) | {"cols": f"{nouns}{joint}{said}", "cols_s": f"{plurals}{joint}{said}"}
    return Asked(_about(phrase, [*own, Ref(parent, column)]), "columns", slots, kinds=phrase.kinds)


def star(s: Speaker, table: Table) -> Asked | None:
    phrase = _phrase(s, table, s.rng.choice((1, 1, 2)))
    if any(t.name != table.name for t in phrase.tables):
        return None
    return Asked(_about(phrase, ["*"]), "star", _slots(phrase), kinds=phrase.kinds)


def _named(s: Speaker, table: Table) -> tuple[str, Ref, dict[str, str]]:
    text, ref = s.name_of(table)
    value = ref.form.split(" = ", 1)[1].strip("'").replace("''", "'")
    return text, ref, {"x": value if table.label.type != "INTEGER" else text, "one": table.one, "value": value}


def star_one(s: Speaker, table: Table) -> Asked:
    _, ref, slots = _named(s, table)
    return Asked(Query(["*"], [table], [ref]), "star_one", slots | {"x": slots["value"]})


def ask_one(s: Speaker, table: Table) -> Asked | None:
    column = _pick(s, table, lambda c: not c.label)
    if not column:
        return None
    _, ref, slots = _named(s, table)
    own = [q.replace("{x}", slots["value"]) for q in column.phrases.get("ask", ())]
    slots |= {"col": s.noun(column)}
    return Asked(Query([Ref(table, column)], [table], [ref]), "ask_one", slots, own)


def ask_two(s: Speaker, table: Table) -> Asked | None:
    refs, nouns, plurals = _projection(s, table, 3, avoid=(table.label,))
    if len(refs) < 2:
        return None
    _, ref, slots = _named(s, table)
    return Asked(Query(refs, [table], [ref]), "ask_two", slots | {"cols": nouns, "cols_s": plurals})


def distinct(s: Speaker, table: Table) -> Asked | None:
    column = _pick(s, table, lambda c: not c.label, lambda c: c.type == "TEXT" or c.few)
    if not column:
        return None
    phrase = _phrase(s, table, s.rng.choice(FEW), avoid=(column,))
    counted = s.rng.random() < 0.5
    query = _about(phrase, [Ref(table, column, "COUNT(DISTINCT {c})" if counted else "{c}")], distinct=not counted)
    slots = _slots(phrase) | {"col": s.noun(column), "col_s": s.nouns(column)}
    return Asked(query, "count_distinct" if counted else "distinct", slots, kinds=phrase.kinds)


def aggregate(s: Speaker, table: Table) -> Asked | None:
    name = s.rng.choice(("average", "average", "total", "total", "highest", "lowest", "range"))
    column = _pick(s, table, {"total": _summed, "average": _averaged}.get(name, _number))
    if not column:
        return None
    phrase = _phrase(s, table, s.rng.choice((0, 1, 1, 1, 2)), avoid=(column,))
    forms = {"average": ["AVG({c})"], "total": ["SUM({c})"], "highest": ["MAX({c})"], "lowest": ["MIN({c})"]}
    select = [Ref(table, column, form) for form in forms.get(name, ["MIN({c})", "MAX({c})"])]
    slots = _slots(phrase) | {"col": s.noun(column), "col_s": s.nouns(column)}
    own = [q.replace("{them}", phrase.them) for q in column.phrases.get(name, ())]
    return Asked(_about(phrase, select), name, slots, own, phrase.kinds)


def _order_words(s: Speaker, column: Column, down: bool) -> str:
    noun, rng = s.noun(column), s.rng
    if column.type == "TEXT":
        up = (
            "in alphabetical order of {n}",
            "sorted by {n}",
            "ordered by {n}",
            "alphabetically by {n}",
            "by {n} from A to Z",
        )
        back = ("in reverse alphabetical order of {n}", "by {n} from Z to A", "sorted by {n} descending")
        return rng.choice(back if down else up).format(n=noun)
    own = column.phrases.get("most" if down else "least", ())
    if own and rng.random() < 0.55:
        return f"{rng.choice(own)} first"
    if column.type == "DATE":
        up = ("earliest {n} first", "by {n}, oldest first", "from the earliest {n} to the latest", "in order of {n}")
        back = ("latest {n} first", "by {n}, newest first", "most recent {n} first", "by {n} in descending order")
    else:
        up = (
            "by {n}, lowest first", "in ascending order of {n}", "from the lowest {n} to the highest", "sorted by {n}",
            "smallest {n} first", "ordered by {n} from low to high", "by increasing {n}",
        )  # fmt: skip
        back = (
            "by {n}, highest first", "in descending order of {n}", "from the highest {n} to the lowest",
            "largest {n} first", "sorted by {n} from high to low", "highest {n} first", "by decreasing {n}",
        )  # fmt: skip
    return rng.choice(back if down else up).format(n=noun)


def sorted_rows(s: Speaker, table: Table) -> Asked | None:
    order = _pick(s, table, lambda c: _sortable(c) or (c.type == "TEXT" and s.rng.random() < 0.35))
    if not order:
        return None
    down = s.rng.random() < (0.55 if order.type != "TEXT" else 0.2)
    refs, nouns, plurals = _projection(s, table, 2)
    label = s.rng.random() < 0.5
    select = [Ref(table, table.label)] if label else refs
    phrase = _phrase(s, table, s.rng.choice(FEW), avoid=(order, *(r.column for r in refs)))
    slots = _slots(phrase) | {"cols": nouns, "cols_s": plurals, "order": _order_words(s, order, down)}
    query = _about(phrase, select, order=Ref(table, order), descending=down)
    return Asked(query, "sorted" if label else "sorted_columns", slots, kinds=phrase.kinds)


def extreme(s: Speaker, table: Table) -> Asked | None:
    """The one row at the top, or the first k."""
    order = _pick(s, table, _sortable)
    if not order:
        return None
    down, k = s.rng.random() < 0.6, s.rng.choice((1, 1, 1, 2, 3, 3, 4, 5, 5, 6, 8, 10))
    phrase = _phrase(s, table, s.rng.choice(FEW), avoid=(order,), singular=k == 1)
    own = order.phrases.get("most" if down else "least", ())
    if own and s.rng.random() < 0.7:
        superlative = s.rng.choice(own)
        best = " ".join([superlative, *phrase.adjectives, table.one]) + phrase.after
        bests = " ".join([superlative, *phrase.adjectives, phrase.many]) + phrase.after
    else:
        ways = (LATEST if down else EARLIEST) if order.type == "DATE" else HIGHEST if down else LOWEST
        way = s.rng.choice(ways).replace("{say}", s.noun(order))
        best, bests = f"{phrase.one} {way}", f"{phrase.them} {way.replace('that has', 'that have')}"
    label = s.rng.random() < 0.6
    refs, nouns, plurals = _projection(s, table, 2)
    if not label and [r.column for r in refs] == [table.label]:
        return None
    slots = {"best": best, "bests": bests, "cols": nouns, "cols_s": plurals, "k": _counted(s, k)}
    query = _about(
        phrase, [Ref(table, table.label)] if label else refs, order=Ref(table, order), descending=down, limit=k
    )
    template = ("best" if k == 1 else "top") + ("" if label else "_columns")
    return Asked(query, template, slots, kinds=phrase.kinds)


def _counted(s: Speaker, n: int) -> str:
    return str(n) if s.rng.random() < 0.55 else NUMBER_WORDS[n]


def _grouped(s: Speaker, table: Table) -> tuple[Column, NounPhrase, dict[str, str]] | None:
    group = _pick(s, table, _grouping)
    if not group:
        return None
    phrase = _phrase(s, table, s.rng.choice((0, 0, 0, 0, 1, 1)), avoid=(group,))
    noun = s.noun(group)
    own = group.phrases.get("each", ())
    each = s.rng.choice(own if own and s.rng.random() < 0.6 else ("per {g}", "for each {g}", "by {g}", "for every {g}"))
    return group, phrase, _slots(phrase) | {"g": noun, "g_s": s.nouns(group), "each": each.replace("{g}", noun)}


def group_count(s: Speaker, table: Table) -> Asked | None:
    if not (made := _grouped(s, table)):
        return None
    group, phrase, slots = made
    query = _about(phrase, [Ref(table, group), "COUNT(*)"], group=Ref(table, group))
    return Asked(query, "group_count", slots, kinds=phrase.kinds)


def group_aggregate(s: Speaker, table: Table) -> Asked | None:
    made, name = _grouped(s, table), s.rng.choice(("AVG", "AVG", "SUM", "SUM", "MAX", "MIN"))
    column = _pick(s, table, _summed if name == "SUM" else _averaged)
    if not made or not column or column == made[0]:
        return None
    group, phrase, slots = made
    words = {"AVG": ("average", "mean"), "SUM": ("total", "combined", "overall"), "MAX": ("highest", "maximum", "largest"),
             "MIN": ("lowest", "minimum", "smallest")}  # fmt: skip
    slots |= {"agg": s.rng.choice(words[name]), "col": s.noun(column)}
    query = _about(phrase, [Ref(table, group), Ref(table, column, f"{name}({{c}})")], group=Ref(table, group))
    return Asked(query, "group_agg", slots, kinds=phrase.kinds)


def _compared(s: Speaker) -> tuple[str, str]:
    operator, n = s.rng.choices(list(COMPARED), (5, 5, 3, 1))[0], s.rng.randint(2, 9)
    return s.rng.choice(COMPARED[operator]).replace("{n}", _counted(s, n)), f"COUNT(*) {operator} {n}"


def having(s: Speaker, table: Table) -> Asked | None:
    if not (made := _grouped(s, table)):
        return None
    group, phrase, slots = made
    slots["cmp"], condition = _compared(s)
    query = _about(phrase, [Ref(table, group)], group=Ref(table, group), having=condition)
    return Asked(query, "having", slots, kinds=phrase.kinds)


def common(s: Speaker, table: Table) -> Asked | None:
    if not (made := _grouped(s, table)):
        return None
    group, phrase, slots = made
    down = s.rng.random() < 0.75
    slots |= {
        "often": "most" if down else "fewest",
        "common": "most common" if down else s.rng.choice(("least common", "rarest")),
    }
    query = _about(phrase, [Ref(table, group)], group=Ref(table, group), order="COUNT(*)", descending=down, limit=1)
    return Asked(query, "common", slots, kinds=phrase.kinds)


def _child(s: Speaker, parent: Table) -> tuple[Table, Column] | None:
    links = linked(s.schema.tables.values(), parent)
    return s.rng.choice(links) if links else None


def ask_parent(s: Speaker, table: Table) -> Asked | None:
    """Which parent a row has, or another column of its parent."""
    links = [c for c in table.columns if c.parent in s.schema.tables]
    if not links:
        return None
    link = s.rng.choice(links)
    parent = s.schema.tables[link.parent]
    text, ref, slots = _named(s, table)
    if s.rng.random() < 0.45:
        own = [q.replace("{x}", slots["value"]) for q in link.phrases["asks"]]
        return Asked(Query([Ref(parent, parent.label)], [table], [ref]), "", {}, own)
    column = _pick(s, parent, lambda c: not c.label)
    if not column:
        return None
    named = text if text.startswith(table.one) or s.rng.random() < 0.4 else f"{table.one} {text}"
    row = s.rng.choice(
        (f"the {parent.one} of {named}", f"{named}'s {parent.one}", f"the {parent.one} belonging to {named}")
    )
    own = [
        q.replace("the {x}", row).replace(f"{parent.one} {{x}}", row).replace("{x}", row)
        for q in column.phrases.get("ask", ())
    ]
    slots = {"col": s.noun(column), "x": row, "one": ""}
    generic = [f"what is the {slots['col']} of {row}?", f"{slots['col']} of {row}", f"give me the {slots['col']} of {row}",
               f"which {slots['col']} does {row} have?", f"find the {slots['col']} for {row}"]  # fmt: skip
    return Asked(Query([Ref(parent, column)], [table], [ref]), "", slots, [*own, *own, *generic])


def count_of_parent(s: Speaker, table: Table) -> Asked | None:
    if not (made := _child(s, table)):
        return None
    child, link = made
    text, ref = s.name_of(table)
    own = [q.replace("{p}", text) for q in link.phrases["count"]]
    return Asked(Query(["COUNT(*)"], [child, table], [ref]), "", {}, own)


def with_children(s: Speaker, table: Table) -> Asked | None:
    """Rows that have linked rows of some kind, each once; or that have none."""
    if not (made := _child(s, table)):
        return None
    child, link = made
    if s.rng.random() < 0.35:
        condition = s.without_children(table, child, link)
    else:
        condition = s.with_children(table, child, link)
    if not condition:
        return None
    phrase = NounPhrase(table, s.many(table), [condition])
    asked = Asked(_about(phrase, [Ref(table, table.label)]), "which", _slots(phrase), kinds=phrase.kinds)
    asked.query.distinct = condition.kind != "subquery"
    return _predicated(s, asked, phrase, "which_pred")


def children_of_each(s: Speaker, table: Table) -> Asked | None:
    """Linked rows counted for each row: all of them, the most, or enough."""
    if not (made := _child(s, table)):
        return None
    child, _ = made
    phrase = s.noun_phrase(child, s.rng.choice((0, 0, 1)), links=0, avoid=())
    group = Ref(table, table.label)
    slots = {"children": phrase.them, "parent": table.one, "parents": s.many(table)}
    way = s.rng.choice(("parent_count", "parent_count", "parent_most", "parent_having"))
    query = Query([group], [table, *phrase.tables], phrase.where, phrase.either, group=group)
    if way == "parent_count":
        query.select.append("COUNT(*)")
    elif way == "parent_most":
        down = s.rng.random() < 0.75
        slots["often"] = "most" if down else "fewest"
        query.order, query.descending, query.limit = "COUNT(*)", down, 1
    else:
        slots["cmp"], query.having = _compared(s)
    return Asked(query, way, slots, kinds=phrase.kinds)


def same_as(s: Speaker, table: Table) -> Asked | None:
    """Rows that share a value with a row that is named."""
    column = _pick(s, table, lambda c: not c.label, lambda c: c.type == "TEXT" or c.few or c.is_year)
    if not column:
        return None
    _, ref, slots = _named(s, table)
    inner = f"SELECT {column.name} FROM {table.name} WHERE {ref.form.replace('{c}', table.label.name)}"
    query = Query([Ref(table, table.label)], [table], [Ref(table, column, f"{{c}} = ({inner})")])
    slots |= {"many": s.many(table), "col": s.noun(column)}
    return Asked(query, "same_as", slots, kinds={"subquery"})


KINDS: dict[Callable[[Speaker, Table], Asked | None], float] = {
    which: 17, columns: 12, columns_of_both: 5, star: 2, star_one: 2, ask_one: 9, ask_two: 3, count: 11, distinct: 6,
    aggregate: 13, sorted_rows: 6, extreme: 12, group_count: 5, group_aggregate: 5, having: 4, common: 4, ask_parent: 12,
    count_of_parent: 6, with_children: 10, children_of_each: 8, same_as: 1.5,
}  # fmt: skip
