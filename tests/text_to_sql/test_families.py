"""Queries fall into four families, whatever their values say."""

import pytest

from helpers.text_to_sql.families import NUMBER, ORDERED, ROWS, SEVERAL, by_family, family_of

CASES = {
    "SELECT a FROM t WHERE b = 'JOIN us'": ROWS,
    "SELECT a FROM t WHERE b = 'it''s COUNT(x) ORDER BY'": ROWS,
    "select avg(a) from t": NUMBER,
    "SELECT a, COUNT(*) FROM t GROUP BY a": ORDERED,
    "SELECT a FROM t ORDER BY b LIMIT 1": ORDERED,
    "SELECT T1.a FROM t AS T1 JOIN u AS T2 ON T1.i = T2.i ORDER BY T1.a": SEVERAL,
    "SELECT a FROM t WHERE b > (SELECT AVG(b) FROM t)": SEVERAL,
}


@pytest.mark.parametrize("sql", CASES)
def test_the_clause_that_makes_it_hard(sql):
    assert family_of(sql) == CASES[sql]


def test_counts_by_family():
    assert by_family(list(CASES), [True] * 3 + [False] * 4) == {
        ROWS: (2, 2),
        NUMBER: (1, 1),
        ORDERED: (0, 2),
        SEVERAL: (0, 2),
    }
