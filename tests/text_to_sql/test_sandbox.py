"""The sandbox: whatever a query or a context does, it ends soon and takes little memory."""

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from helpers.files import ROOT
from helpers.text_to_sql.sandbox import ExecutionError, run_sql
from helpers.text_to_sql.tables import open_tables, schema_of

HIVES = "CREATE TABLE beehives (hive TEXT, honey_kg REAL)"
ROWS = {"beehives": [(f"hive {n}", n + 0.5) for n in range(12)]}
NINE = "(SELECT 1 AS x" + "".join(f" UNION ALL SELECT {n}" for n in range(2, 10)) + ")"
NINES = ", ".join(f"{NINE} AS {alias}" for alias in "abcde")
LONG, TRIMMED, PATTERN = "'" + "a" * 1500 + "'", "'" + "b" * 150 + "a'", "'" + "%a" * 45 + "%b'"
COUNTING = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 3000) "
TRIMS = " + ".join(["length(ltrim(x, y))"] * 12)


def doubling(step: str, first: str = "SELECT 'aaaa' AS x") -> str:
    """Forty queries, each of which names the one before it twice: 2 ** 40 of the first."""
    steps = ", ".join(f"a{n} AS ({step.replace('BEFORE', f'a{n - 1}')})" for n in range(1, 40))
    return f"WITH a0 AS ({first}), {steps} SELECT COUNT(x) FROM a39"


# They spend time or memory inside functions, in the compiler or in what SQLite keeps, where nobody counts instructions.
ATTACKS = {
    "printf": "SELECT printf('%.1000000000f', honey_kg) FROM beehives",
    "format": "SELECT format('%.1000000000f', honey_kg) FROM beehives",
    "doubling string": "WITH RECURSIVE d(s) AS (SELECT 'aaaa' UNION ALL SELECT s || s FROM d) SELECT length(s) FROM d",
    "doubling union": doubling("SELECT * FROM BEFORE UNION ALL SELECT * FROM BEFORE"),
    "doubling join": doubling("SELECT p.x FROM BEFORE AS p JOIN BEFORE AS q"),
    "doubling membership": doubling("SELECT x FROM BEFORE WHERE x IN BEFORE"),
    "doubling expression": doubling("SELECT substr(x || x, 1, 900) AS x FROM BEFORE"),
    "doubling ltrim": doubling(
        "SELECT ltrim(x, y) AS x, y FROM BEFORE UNION ALL SELECT ltrim(x, y), y FROM BEFORE",
        f"SELECT {LONG} AS x, {TRIMMED} AS y",
    ),
    "nested ltrim": f"SELECT {'ltrim(' * 20}x{', y)' * 20} FROM (SELECT {LONG} AS x, {TRIMMED} AS y)",
    "many ltrim": f"SELECT {' + '.join(['ltrim(x,y)'] * 200)} AS z FROM (SELECT {LONG} AS x, {TRIMMED} AS y)",
    "repeated ltrim": f"{COUNTING} SELECT SUM({TRIMS}) FROM n, (SELECT {LONG} AS x, {TRIMMED} AS y)",
    "many like": f"SELECT {' + '.join(['(x LIKE y)'] * 200)} AS z FROM (SELECT {LONG} AS x, {PATTERN} AS y)",
    "many emoji": f"{COUNTING} SELECT {', '.join(['s || i'] * 100)} FROM n, (SELECT {LONG[:-1]}\U0001f600' AS s)",
    "long sort": f"SELECT s || a.x || b.x AS z FROM (SELECT {LONG} AS s), {NINES} ORDER BY 1",
    "long distinct": f"SELECT COUNT(DISTINCT s || a.x || b.x || c.x || d.x) FROM (SELECT {LONG} AS s), {NINES}",
    "long groups": f"SELECT group_concat(s) FROM (SELECT {LONG} AS s), {NINES} GROUP BY a.x || b.x || c.x || d.x",
    "long window": f"SELECT row_number() OVER (ORDER BY s || a.x || b.x || c.x) FROM (SELECT {LONG} AS s), {NINES}",
    "wide join": "SELECT COUNT(*) FROM " + ", ".join(f"beehives AS t{n}" for n in range(60)),
}
MEASURE = """
import json, sys, time
from helpers.text_to_sql import sandbox, tables
context, rows, attacks, limits = json.loads(sys.stdin.read())
for name, value in limits.items():
    setattr(sandbox, name, value)
def peak():  # ru_maxrss would begin with the peak of the process that started this one
    status = open("/proc/self/status").read()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])
with tables.open_tables(context, rows) as connection:
    sandbox.run_sql("SELECT * FROM beehives", connection)
    before, seconds = peak(), {}
    for name, sql in attacks.items():
        started = time.process_time()
        try:
            sandbox.run_sql(sql, connection)
        except sandbox.ExecutionError:
            pass
        seconds[name] = time.process_time() - started
print(json.dumps([seconds, peak() - before]))
"""


def measured(attacks: dict[str, str], **limits: float) -> tuple[dict[str, float], int]:
    """Each attack's processor seconds, and by how many bytes all of them together raised the peak, in a new process."""
    if not Path("/proc/self/status").exists():
        pytest.skip("Only Linux says how much memory a process has held.")
    done = subprocess.run(
        [sys.executable, "-c", MEASURE],
        input=json.dumps([HIVES, ROWS, attacks, limits]),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=200,
    )
    return tuple(json.loads(done.stdout))


def test_attacks_end_soon_and_take_little_memory() -> None:
    seconds, risen = measured(ATTACKS)
    assert {name: spent for name, spent in seconds.items() if spent > 2} == {}
    assert risen < 200_000_000


def test_without_the_limits_the_same_attacks_are_seen() -> None:
    union = {"doubling union": ATTACKS["doubling union"]}
    assert measured(union, MAX_HEAP_BYTES=500_000_000)[1] > 200_000_000
    emoji = {"many emoji": ATTACKS["many emoji"]}
    assert measured(emoji, MAX_RESULT_CHARACTERS=10**10, MAX_HEAP_BYTES=10**9)[1] > 200_000_000
    ltrim = {"repeated ltrim": ATTACKS["repeated ltrim"]}
    assert measured(ltrim, MAX_CPU_SECONDS=2)[0]["repeated ltrim"] > 1


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT UPPER(hive), ROUND(AVG(honey_kg), 1) FROM beehives GROUP BY hive HAVING COUNT(*) > 0",
        "SELECT COALESCE(hive, ''), TRIM(hive), SUBSTR(hive, 1, 3), LENGTH(hive) FROM beehives WHERE hive LIKE 'h%'",
        "SELECT RANK() OVER (ORDER BY honey_kg DESC) FROM beehives",
        "SELECT strftime('%Y', '2020-01-01'), IIF(honey_kg > 3, 'much', 'little') FROM beehives",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50) SELECT i FROM n",
        "SELECT COUNT(*) FROM beehives AS a, beehives AS b, beehives AS c WHERE a.honey_kg < b.honey_kg",
        "SELECT hive FROM beehives WHERE hive IN (" + ", ".join(f"'hive {n}'" for n in range(300)) + ")",
    ],
)
def test_honest_queries_run(sql: str) -> None:
    with closing(open_tables(HIVES, ROWS)) as connection:
        assert run_sql(sql, connection)


@pytest.mark.parametrize("sql", ["SELECT printf('%d', 1)", "SELECT json('1')", "SELECT randomblob(9)"])
def test_functions_that_are_not_listed_are_refused(sql: str) -> None:
    with closing(open_tables(HIVES, ROWS)) as connection, pytest.raises(ExecutionError, match="not authorized"):
        run_sql(sql, connection)


@pytest.mark.parametrize(
    "context",
    [
        "CREATE TABLE a (x TEXT CHECK (x != printf('%.1000000000f', 1.5)))",
        "CREATE TABLE a (x TEXT, y TEXT GENERATED ALWAYS AS (printf('%.1000000000f', x)))",
        "CREATE TABLE a (x TEXT);" * 10_000,
        "".join(f"CREATE TABLE a{n} (x);" for n in range(20_000)),
        "CREATE TABLE a AS " + ATTACKS["doubling union"],
        None,
    ],
    ids=["check", "generated", "long", "many", "query", "none"],
)
def test_hostile_contexts_are_refused(context: str | None) -> None:
    with pytest.raises(ExecutionError, match="CREATE TABLE"):
        open_tables(context, {})


def test_a_large_but_honest_context_is_read() -> None:
    columns = ", ".join(f"column_{n} VARCHAR" for n in range(150))
    context = "; ".join(f"CREATE TABLE t{n} ({columns})" for n in range(8))
    assert [len(columns) for columns in schema_of(context).values()] == [150] * 8
