"""One prompt for the course's models and for others; the SQL is found however a model writes."""

from types import SimpleNamespace

import pytest

from helpers.text_to_sql.generator import Example
from helpers.text_to_sql.prompts import BARE, extract_sql, prompt_for

EXAMPLE = Example("1", "CREATE TABLE ship (name TEXT)", "Which ships?", "SELECT name FROM ship")


def tokenizer(vocabulary=(), template=None, bos=None):
    def apply(messages, tokenize, add_generation_prompt):
        assert not tokenize and add_generation_prompt
        return f"[{messages[0]['content']}]"

    return SimpleNamespace(
        convert_tokens_to_ids=lambda token: dict(vocabulary).get(token),
        unk_token_id=None,
        chat_template=template,
        bos_token=bos,
        apply_chat_template=apply,
    )


def test_each_model_is_asked_in_its_own_way():
    own = prompt_for(tokenizer({BARE: 1}), EXAMPLE)
    assert own == "<|user|>CREATE TABLE ship (name TEXT)\nWhich ships?<|assistant|>"
    chat = prompt_for(tokenizer({"<|assistant|>": 1}, template="x"), EXAMPLE)
    assert chat.startswith("[Answer the question with one SQLite query") and "Which ships?" in chat
    plain = prompt_for(tokenizer(bos="<s>"), EXAMPLE)
    assert plain.startswith("<s>Answer") and plain.endswith("```sql\n")


@pytest.mark.parametrize(
    "text, sql",
    [
        ("Sure!\n```sql\nSELECT a FROM b\n```\nBye.", "SELECT a FROM b"),
        ("SELECT a FROM b\n```\nThis selects a.", "SELECT a FROM b"),
        ("select a from b\n```", "select a from b"),
        ("WITH t AS (SELECT 1) SELECT * FROM t\n```\nwith that", "WITH t AS (SELECT 1) SELECT * FROM t"),
        ("Sure, with pleasure: SELECT a FROM b", "SELECT a FROM b"),
        ("Sure, with pleasure.", None),
        ("```sql\nSELECT a FROM b", "SELECT a FROM b"),
        ("SELECT a FROM b WHERE c = 'x;y'; bye", "SELECT a FROM b WHERE c = 'x;y'"),
        ("", None),
    ],
)
def test_the_sql_is_found(text, sql):
    assert extract_sql(text) == sql
