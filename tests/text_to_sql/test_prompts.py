"""One prompt for every model, in the words of its own chat template; the SQL is found however a model writes."""

from types import SimpleNamespace

import pytest

from helpers import models
from helpers.errors import CourseError
from helpers.models import package
from helpers.text_to_sql.example import Example
from helpers.text_to_sql.prompts import extract_sql, prompt_for
from tests.tiny_tokenizer import tiny_tokenizer

EXAMPLE = Example("1", "CREATE TABLE ship (name TEXT)", "Which ships?", "SELECT name FROM ship")
TASK = """Answer the question with one SQLite query. Use only these tables.

CREATE TABLE ship (name TEXT)

Which ships?"""
USER = f"<|im_start|>user\n{TASK}<|im_end|>\n<|im_start|>assistant\n"
SYSTEM = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


def test_the_base_is_asked_in_the_words_of_its_template():
    try:
        base = package.package_folder()
    except CourseError as error:
        pytest.skip(str(error))
    assert prompt_for(models.tokenizer_of(base), EXAMPLE) == SYSTEM + USER


def test_special_tokens_are_in_the_prompt_once_and_are_tokens(tokenizer):
    prompt = prompt_for(tokenizer, EXAMPLE)
    assert prompt == USER
    ids = tokenizer(prompt, add_special_tokens=False).input_ids
    assert [ids.count(token) for token in (tokenizer.bos_token_id, tokenizer.eos_token_id)] == [2, 1]
    assert tokenizer.decode(ids) == prompt


def test_the_answer_is_not_in_the_prompt(tokenizer):
    assert EXAMPLE.answer in prompt_for(tokenizer, Example("1", "", EXAMPLE.answer, ""))  # it would be seen
    assert EXAMPLE.answer not in prompt_for(tokenizer, EXAMPLE)


def test_a_model_without_a_template_goes_on_with_a_text():
    plain = SimpleNamespace(chat_template=None, bos_token="<s>")
    assert prompt_for(plain, EXAMPLE) == f"<s>{TASK}\n```sql\n"
    assert prompt_for(SimpleNamespace(chat_template=None, bos_token=None), EXAMPLE) == f"{TASK}\n```sql\n"


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
        ("SELECT a FROM b\n-- What's a; and b's?", "SELECT a FROM b\n-- What's a; and b's?"),
        ("", None),
    ],
)
def test_the_sql_is_found(text, sql):
    assert extract_sql(text) == sql
