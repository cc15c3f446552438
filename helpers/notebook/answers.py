"""Answers beside each other, and how many of them are right: what notebook 00 shows of quality."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from helpers.decoding.completion import Completion
from helpers.decoding.generate import generate
from helpers.measuring.quality import wilson
from helpers.notebook import plots
from helpers.notebook.results import Results
from helpers.notebook.sentences import indented, say
from helpers.text_to_sql.evaluate import is_correct, right_answers
from helpers.text_to_sql.example import Example
from helpers.text_to_sql.families import by_family
from helpers.text_to_sql.mutants import mutants
from helpers.text_to_sql.prompts import extract_sql, prompt_for
from helpers.training.self_distillation import greedy_answers

SELECTS = re.compile(r"(SELECT|WITH)\b", re.IGNORECASE)


def show_examples(examples: Sequence[Example]) -> None:
    """Tables, question and query of each."""
    for example in examples:
        for name, text in (("tables", example.context), ("question", example.question), ("SQL", example.answer)):
            print(indented(text, f"{name + ':':10}"))
        print()


def side_by_side(
    example: Example, models: Mapping[str, object], tokenizer, max_new_tokens: int = 256
) -> dict[str, Completion]:
    """One question, each model's answer, and whether its SQL is right. Prints, and returns the answers."""
    print(indented(example.context, f"{'tables:':10}"))
    print(indented(example.question, f"{'question:':10}"), end="\n\n")
    answers = {}
    for name, model in models.items():
        prompt = tokenizer(prompt_for(tokenizer, example), add_special_tokens=False).input_ids
        answers[name] = generate(model, tokenizer, prompt, max_new_tokens=max_new_tokens)
        good = is_correct(extract_sql(answers[name].text), example.context, example.answer)
        cut = ", cut off here" if answers[name].finish_reason == "length" else ""
        print(f"{name} ({len(answers[name].token_ids)} tokens{cut}; {'right' if good else 'wrong'}):")
        print(indented(answers[name].text.strip(), "    "), end="\n\n")
    return answers


def read_side_by_side(answers: Mapping[str, Completion]) -> None:
    """What two answers cost, in a sentence."""
    (long, many), (_, few) = ((name, len(answer.token_ids)) for name, answer in answers.items())
    sentences = [f"{many} tokens against {few}, and each of them cost a step."]
    sql = extract_sql(answers[long].text)
    if sql is None:
        sentences.append(f"There is no query in what the {long} model wrote.")
    elif sql != answers[long].text.strip().rstrip(";"):
        sentences.append(f"What the {long} model writes around its SQL is paid for like SQL.")
        sentences.append("The prose sounds sure, whether the SQL is right or not.")
    say(*sentences)


def show_mistakes(example: Example, limit: int = 4) -> None:
    """The reference query and likely mistakes in it, each with the verdict that it gets."""
    print(indented(example.question, f"{'question:':10}"))
    print(indented(example.answer, f"{'reference:':10} "))
    made = mutants(example.answer, example.context)
    for mistake in made[:: max(1, len(made) // limit)][:limit]:  # of several kinds
        good = is_correct(mistake, example.context, example.answer)
        print(indented(mistake, f"{'counts as right:' if good else 'counts as wrong:'} "))


@dataclass(frozen=True)
class Judged:
    """Answers to examples, and whether each returned the right thing."""

    examples: Sequence[Example]
    texts: Sequence[str]
    right: Sequence[bool]

    @classmethod
    def of(cls, examples: Sequence[Example], texts: Sequence[str]) -> Judged:
        return cls(examples, texts, right_answers(examples, texts))

    @classmethod
    def by(cls, model, tokenizer, examples: Sequence[Example], max_new_tokens: int, batch_size: int = 32) -> Judged:
        """A model's greedy answers, many at a time."""
        texts = [prompt_for(tokenizer, example) for example in examples]
        prompts = [tokenizer(text, add_special_tokens=False).input_ids for text in texts]
        answers = greedy_answers(model, prompts, max_new_tokens, batch_size)
        written = tokenizer.batch_decode([answer.tokens for answer in answers], skip_special_tokens=True)
        return cls.of(examples, written)

    @property
    def share(self) -> float:
        return sum(self.right) / len(self.right)

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, of Wilson (1927)."""
        return wilson(sum(self.right), len(self.right))


def show_accuracy(results: Results, judged: Mapping[tuple[str, str], Judged]) -> None:
    """A line for each (metric, words): right answers, their share and its interval; writes the metrics."""
    for (key, words), one in judged.items():
        low, high = one.interval
        ends = dict(low=min(low, one.share), high=max(high, one.share))  # rounding, where none or all are right
        results.metric(key, one.share, "share", **ends, n=len(one.right))
        print(f"{words:42} {sum(one.right):3} of {len(one.right):3} right: {one.share:4.0%} ({low:.0%} to {high:.0%})")


def read_accuracy(base: Judged, tuned: Judged, people: Judged) -> None:
    """What the three shares say together, in sentences."""
    if tuned.interval[0] > base.interval[1]:
        print("Fine-tuning made the difference: the two intervals on test questions lie apart.")
    else:
        print("On so few questions the two intervals overlap: they can't show what fine-tuning is worth.")
    if people.interval[1] < tuned.interval[0]:
        say(
            "People's questions are harder for it than generated ones.",
            "A test that looks like the training flatters; the handwritten questions are the honest ones.",
        )
    else:
        print("People's questions and generated ones can't be told apart by these intervals.")


def show_families(judged: Judged, title: str) -> None:
    """A bar for each of four families of queries, with its interval, and a sentence about the weakest."""
    counts = by_family([example.answer for example in judged.examples], judged.right)
    shares = {family: good / n for family, (good, n) in counts.items()}
    plots.bars_with_intervals(
        [f"{family} ({n})" for family, (_, n) in counts.items()],
        list(shares.values()),
        [wilson(good, n) for good, n in counts.values()],
        title=title,
        value_label="right answers (share)",
    ).set_xlim(0, 1.12)
    weakest = min(shares, key=shares.get)
    print(f"The weakest family is {weakest!r}: {counts[weakest][0]} of {counts[weakest][1]} right.", end=" ")
    print("The line on each bar is its 95 % interval.")


def show_wrong(judged: Judged, limit: int = 3) -> None:
    """Some questions that went wrong: the query that was wanted, and the one that came."""
    wrong = [place for place, good in enumerate(judged.right) if not good]
    for place in wrong[:limit]:
        example, text = judged.examples[place], judged.texts[place].strip()
        written = extract_sql(text) or f"no whole query in {text[:70]!r}"
        for name, text in (("question", example.question), ("wanted", example.answer), ("answer", written)):
            print(indented(text, f"{name + ':':10}"))
        print()
    if not wrong:
        print("None of these answers is wrong.")


def show_length(results: Results, base: Judged, tokenizer) -> None:
    """How many of the base's answers hold a query, and how many tokens these take beside their SQL alone; writes the
    ratio."""

    def count(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False).input_ids)

    queries = [(text, sql) for text in base.texts if (sql := extract_sql(text)) and SELECTS.match(sql)]
    pairs = [(count(text), count(sql)) for text, sql in queries]
    print(f"{len(pairs)} of the base's {len(base.texts)} answers hold a query.", end=" ")
    if not pairs:
        print("The others are prose, or tables made anew.")
        return
    written, needed = (mean(counts) for counts in zip(*pairs))
    results.metric("start.chatty_length_ratio", written / needed, "ratio", n=len(pairs))
    print(f"In these it writes {written:.0f} tokens on average where the SQL has {needed:.0f}:", end=" ")
    print(f"{written / needed:.1f} times the steps.")
