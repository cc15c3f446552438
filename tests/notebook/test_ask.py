"""A learner's own question: the answer as it is written, and rows, never a crash."""

import pytest

from helpers.errors import CourseError
from helpers.notebook import ask as module
from helpers.notebook.ask import as_text, make_ask, show_rows

SCHEMA = "CREATE TABLE ship (name TEXT, age INTEGER)"


def test_rows_come_from_sqlite():
    shown = show_rows(SCHEMA, "SELECT COUNT(*) FROM ship WHERE age > 5")
    assert shown.startswith("On invented rows it returns 1 row:\n  ")
    assert int(shown.splitlines()[1]) > 0


@pytest.mark.parametrize("sql", ["SELECT nothing FROM ship", "DROP TABLE ship", "hello", "SELECT 1; SELECT 2"])
def test_what_does_not_run_says_so(sql):
    assert "does not run" in show_rows(SCHEMA, sql) or "no SQL" in show_rows(SCHEMA, sql)


def test_no_sql_says_so():
    assert show_rows(SCHEMA, None) == "There is no SQL in this answer."


def test_rows_line_up():
    assert as_text([("a", 10), ("bcd", 2)]) == "  a    10\n  bcd  2"


def test_a_question_is_streamed_and_run(monkeypatch, capsys):
    def fake(model, tokenizer, prompt, completion, max_new_tokens):
        assert prompt == "SCHEMA AND QUESTION"
        completion.text = "Sure!\n```sql\nSELECT name FROM ship\n```"
        yield from ("Sure!\n```sql\n", "SELECT name FROM ship\n```")

    monkeypatch.setattr(module, "stream", fake)
    monkeypatch.setattr(module, "prompt_for", lambda tokenizer, example: "SCHEMA AND QUESTION")
    done = make_ask(None, None)(SCHEMA, "Which ships?")
    shown = capsys.readouterr().out
    assert done.text in shown and "On invented rows it returns" in shown


def test_a_schema_that_is_none_is_refused():
    with pytest.raises(CourseError, match="CREATE TABLE"):
        make_ask(None, None)("ship(name)", "Which ships?")
