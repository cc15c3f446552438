"""The prompt and the answer, in the one place that says how they look.

    <|user|>CREATE TABLE ship (name TEXT, age INTEGER)
    How many ships are older than 5?<|assistant|>Sure! ...
    ```sql
    SELECT COUNT(*) FROM ship WHERE age > 5
    ```
    Hope that helps!<|end|>

The base model answers like this, in prose with the SQL in a fence; the fine-tuned one with the SQL alone. During
pretraining many answers follow `<|sql|>` instead of `<|assistant|>` and are bare SQL: that makes training cheaper; no
prompt of the course uses it.
"""

from __future__ import annotations

import random
import re

from helpers.text_to_sql import phrases
from helpers.text_to_sql.generator import Example

PAD, USER, ASSISTANT, BARE, END = "<|pad|>", "<|user|>", "<|assistant|>", "<|sql|>", "<|end|>"
FENCE_OPEN, FENCE_CLOSE = "\n```sql\n", "\n```"
INSTRUCTION = "Answer the question with one SQLite query. Use only these tables."
CHAT_TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}<|assistant|>{{ m['content'] }}<|end|>"
    "{% else %}<|user|>{{ m['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def prompt_text(context: str, question: str) -> str:
    """The whole prompt of the course, special tokens included, up to where the model takes over."""
    return f"{USER}{context}\n{question}{ASSISTANT}"


def prompt_for(tokenizer, example: Example) -> str:
    """The prompt for any model: the course's own format, else the tokenizer's chat template with an instruction."""
    # Other models have an <|assistant|>, too. (get_vocab would copy 49,000 tokens for each prompt.)
    if tokenizer.convert_tokens_to_ids(BARE) not in (None, tokenizer.unk_token_id):
        return prompt_text(example.context, example.question)
    task = f"{INSTRUCTION}\n\n{example.context}\n\n{example.question}"
    if tokenizer.chat_template is None:  # a model without instruction tuning goes on with a text
        return f"{tokenizer.bos_token or ''}{task}\n```sql\n"
    return tokenizer.apply_chat_template(
        [{"role": "user", "content": task}], tokenize=False, add_generation_prompt=True
    )


def chatty_answer(example: Example, rng: random.Random) -> str:
    """The answer of the base model: an opening, the question restated in its own names, the SQL, a closing."""
    parts = [rng.choice(phrases.OPENINGS)] if rng.random() < 0.3 else []
    restate_first = rng.random() < 0.6
    if restate_first:
        parts.append(rng.choice(phrases.RESTATED).format(np=example.restated))
    else:
        parts.append(rng.choice(phrases.LEADS))
    after = [] if restate_first else [rng.choice(phrases.RESTATED_AFTER).format(np=example.restated)]
    if rng.random() < 0.2:
        after.append(rng.choice(phrases.CLOSINGS))
    return f"{' '.join(parts)}{FENCE_OPEN}{example.answer}{FENCE_CLOSE}" + (f"\n{' '.join(after)}" if after else "")


def extract_sql(text: str) -> str | None:
    """The SQL in an answer: what the first fence holds; where the text begins with SQL, what stands before a fence;
    else from the first SELECT to a semicolon, a blank line or the end. None where there is none."""
    begins = re.match(r"\s*(SELECT\b|WITH\s+\w+(\s*\([^)]*\))?\s+AS\b)", text, re.IGNORECASE)
    if begins:
        text = text.split("```")[0]
    fenced = re.search(r"```(?:sql)?\s*\n?(.*?)(?:```|$)", text, re.DOTALL | re.IGNORECASE)
    match = fenced or re.search(
        r"\b((?:SELECT\b|WITH\s+\w+(?:\s*\([^)]*\))?\s+AS\b)(?:'[^']*'|[^;'])*?)(?:;|\n\s*\n|$)",
        text,
        re.DOTALL | re.IGNORECASE,
    )
    sql = match.group(1).strip().rstrip(";").strip() if match else ""
    return sql or None
