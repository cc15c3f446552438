"""A tokenizer that lets a model copy: a word has one spelling wherever it stands.

An ordinary byte-level BPE joins a word to the space or the quote before it, so ` oslo` and `'oslo` share no token and
a value must be re-spelled instead of copied. Here a pre-tokenizer isolates words from spaces, quotes, digits,
underscores and punctuation before BPE sees them. Phrases that are never copied (SQL's own, and the function words of
the wordings, with their leading space) are one token each: fewer tokens are faster answers.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from helpers.text_to_sql import phrases
from helpers.text_to_sql.generator import Example, generate_group
from helpers.text_to_sql.lexicon import CATEGORY_VALUES, NUMBERS, SUBJECTS, TEXTS
from helpers.text_to_sql.prompts import ASSISTANT, BARE, CHAT_TEMPLATE, END, FENCE_CLOSE, FENCE_OPEN, PAD, USER

SQL_PHRASES = (
    FENCE_OPEN, FENCE_CLOSE, "CREATE TABLE ", "; CREATE TABLE ", " (", ", ", ", COUNT(*)",
    *(f" {t}{end}" for t in ("TEXT", "INTEGER", "REAL", "VARCHAR", "DECIMAL") for end in (", ", ")")),
    "SELECT ", "SELECT * FROM ", "SELECT COUNT(*) FROM ", "SELECT DISTINCT ", "SELECT COUNT(DISTINCT ", "SELECT T1.",
    "SELECT T2.", "SELECT AVG(", "SELECT SUM(", "SELECT MAX(", "SELECT MIN(", "AVG(", "SUM(", "MAX(", "MIN(",
    ") FROM ", " FROM ", " WHERE ", " AND ", " OR ", " BETWEEN ", " ORDER BY ", " ORDER BY COUNT(*)", " GROUP BY ",
    " HAVING COUNT(*) ", " DESC", " LIMIT ", " AS T1 JOIN ", " AS T2 ON T1.", " = T2.", "T1.", "T2.", " = ", " != ",
    " > ", " < ", " >= ", " <= ", " = '", " != '", "' AND ", "' OR ", "_id", " '", ' "', "' ", '" ',
)  # fmt: skip
# every byte that occurs in UTF-8 text of printable characters; others are dropped when encoding
BYTES = [*range(0x20, 0x7F), 0x0A, *range(0x80, 0xC0), *range(0xC2, 0xF5)]
FUNCTION_WORDS = 330


def _byte_letters() -> dict[int, str]:
    """The printable letter that byte-level BPE writes for each byte (GPT-2's table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return {**{b: chr(b) for b in printable}, **{b: chr(256 + i) for i, b in enumerate(others)}}


def _letters(text: str) -> str:
    table = _byte_letters()
    return "".join(table[b] for b in text.encode())


def function_words(texts: list[str]) -> list[str]:
    """The commonest words of the wordings that can't be a name, with their leading space; capitalised also bare."""
    names = {p for w in [*NUMBERS, *TEXTS, *SUBJECTS] for p in w.split("_")}
    names |= {p.lower() for values in CATEGORY_VALUES.values() for v in values for p in v.split()}
    allowed = {w for w in phrases.template_words() - names if len(w) > 1 or w == "a"}
    counts = Counter(m for text in texts for m in re.findall(r"(?:(?<!,) |\b)[A-Z]?[a-z]+\b", text))
    chosen = [w for w, n in counts.most_common() if w.strip().lower() in allowed and n >= 20]
    return [w for w in chosen if w[0] == " " or w[0].isupper()][:FUNCTION_WORDS]  # a bare "over" might be a name


def _pre_tokenizer(functions: list[str]) -> pre_tokenizers.PreTokenizer:
    """Cuts text into phrases, function words, words, and single other characters."""
    longest_first = sorted(SQL_PHRASES, key=len, reverse=True)
    spaced = "|".join(w for w in functions if w[0] == " ")
    words = [rf"(?:{spaced})(?![A-Za-z0-9_])", r"[A-Z]?[a-z]+", r"[A-Z]+", r"\p{L}", r"\d", r"\n", r"."]
    pattern = Regex("|".join([*(re.escape(p).replace(r"\ ", " ") for p in longest_first), *words]))
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(pattern, behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip


def build_tokenizer(examples: list[Example], answers: list[str], vocabulary: int = 1536) -> PreTrainedTokenizerFast:
    """BPE of `vocabulary` entries, trained on the examples' own mix of names.

    Args:
        examples: what the model will be trained on, some ten thousand.
        answers: chatty answers to them, for the function words.
    """
    functions = function_words([e.question for e in examples] + answers)
    special, table = [PAD, USER, ASSISTANT, BARE, END], _byte_letters()
    alphabet = [table[b] for b in BYTES]
    whole = sorted({_letters(w) for w in [*SQL_PHRASES, *functions]} - set(alphabet))
    not_names = phrases.template_words() | {w.lower() for w in re.findall(r"[A-Z]+", " ".join(SQL_PHRASES))}
    counts = Counter(w for e in examples for w in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", f"{e.context} {e.question}"))
    words = [w for w, n in counts.items() for _ in range(n) if w.lower() not in not_names]
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    size = vocabulary - len(special) - len(whole)
    trained.train_from_iterator(
        words, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False, max_token_length=8)
    )
    learned = json.loads(trained.to_str())["model"]
    tokens = sorted(learned["vocab"], key=learned["vocab"].get)
    vocab = {token: i for i, token in enumerate([*special, *tokens, *(w for w in whole if w not in learned["vocab"])])}
    # ignore_merges: a piece that is in the vocabulary is one token, though no merge leads to it
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[tuple(m) for m in learned["merges"]], ignore_merges=True))
    tokenizer.pre_tokenizer, tokenizer.decoder = _pre_tokenizer(functions), decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, additional_special_tokens=[USER, ASSISTANT, BARE],
        clean_up_tokenization_spaces=False, model_max_length=1024,
    )  # fmt: skip
    fast.chat_template = CHAT_TEMPLATE
    return fast


def training_mix(groups: int, seed: int = 1) -> list[Example]:
    """Examples as pretraining draws them, for the tokenizer and its tests."""
    rng = random.Random(seed)
    return [e for _ in range(groups) for e in generate_group(rng.getrandbits(48), 2)]
