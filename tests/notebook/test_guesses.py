"""What notebook 07 chooses and says follows from what was measured."""

import pytest

from helpers import models
from helpers.decoding.completion import Completion, Step
from helpers.decoding.proposals import NOTHING, chain
from helpers.measuring.cost_model import Shape, StepTime
from helpers.measuring.timing import Timed
from helpers.notebook import guess_bench
from helpers.notebook.guess_bench import (
    Choice,
    Recorded,
    best_of_transformers,
    check_identity,
    choose,
    prompts_of,
    record,
)
from helpers.notebook.guess_results import read_gains, record_answers, show_against_transformers, show_gains
from helpers.notebook.guess_sizes import COMBINED, GREEDY, SIZES, candidates, combinations
from helpers.notebook.guess_tables import (
    WORDS,
    check_sampling,
    predict_elsewhere,
    show_acceptance,
    show_choice,
    show_sampled,
    show_steps,
    show_suppositions,
    show_transformers,
    show_verify_cost,
)
from helpers.notebook.profiles import PROFILES
from helpers.notebook.results import Results
from helpers.profiling.arms import Answer, Bench
from helpers.profiling.model_steps import Steps
from helpers.text_to_sql.dataset import load_split
from tests.tiny_folders import target_and_draft

EQUATION = StepTime("sum", 1e-4, {"float32": 20e9}, {"float32": 200e9})
NAMES = ("draft_model", "prompt_lookup", "bigram", "recycling", "suffix.cold", "suffix.warm", COMBINED)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return target_and_draft(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def bench(folder):
    return Bench(str(folder / "target"), "float32", max_new_tokens=8, turns=0)


@pytest.fixture
def results(tmp_path):
    return Results("07_speculative_decoding", "smoke", folder=tmp_path, code_hash="x", model_hash="y")


def step_seconds(num_tokens):
    return 1.0 + 0.05 * num_tokens


def test_every_profile_has_its_sizes_and_smoke_is_small():
    assert set(SIZES) == set(PROFILES)
    smoke = SIZES["smoke"]
    assert smoke.runs == 1 and smoke.timed == smoke.identity == 2 and SIZES["full"].identity == 450
    assert all(sizes.runs >= 3 for name, sizes in SIZES.items() if name != "smoke")


def test_validation_chooses_by_price_and_every_arm_it_chose_can_be_made(folder, bench):
    prompts, said = prompts_of(bench, "validation", 2), []
    choice = choose(bench, candidates(str(folder / "draft"), 1), prompts, step_seconds, lambda *a: said.append(a))
    assert set(choice.arms) == set(choice.predicted) == set(choice.recorded) == set(NAMES)
    assert choice.predicted[choice.best] == max(gain for _, _, gain in said)
    assert choice.combination in combinations(choice.arms) and len(said) == 6 + 3
    free = choose(bench, {**candidates(str(folder / "draft"), 1)}, prompts, lambda n: 1.0)
    dear = choose(bench, {**candidates(str(folder / "draft"), 1)}, prompts, lambda n: float(n))
    assert dear.predicted["draft_model"] < 0.9 * free.predicted["draft_model"]  # which guesses at every step


def test_what_was_recorded_has_the_tokens_of_greedy_decoding(folder, bench):
    prompts = prompts_of(bench, "validation", 2)
    plain = record(bench, dict(make="greedy"), prompts)
    drafted = record(bench, dict(make="draft_model", draft=str(folder / "draft"), count=2), prompts)
    tokens = [[[t for s in a.steps for t in s.emitted] for a in one.answers] for one in (plain, drafted)]
    assert tokens[0] == tokens[1] and plain.guess_seconds == 0 < drafted.guess_seconds
    assert plain.tokens_per_step == 1


def test_identity_counts_every_arm_and_finds_the_one_that_is_not(bench, results, monkeypatch, capsys):
    arms = {"draft_model": dict(make="recycling", size=4), "prompt_lookup": dict(make="prompt_lookup", count=3)}
    prompts = prompts_of(bench, "validation", 2)
    check_identity(results, bench, arms, prompts)
    keys = ("speculative.identical_outputs", "prompt_lookup.identical_outputs", "speculative.all_arms_identical")
    assert [results.invariants[key] for key in keys] == [{"holds": True, "count": 2, "of": 2}] * 3
    own = guess_bench.answers_in_batches

    def wrong(model, prompts, proposer=None, **options):
        answers = own(model, prompts, proposer, **options)
        return answers if proposer is None or "Lookup" not in type(proposer).__name__ else [answers[0], [0]]

    monkeypatch.setattr(guess_bench, "answers_in_batches", wrong)
    check_identity(results, bench, arms, prompts)
    assert [results.invariants[key]["count"] for key in keys] == [2, 1, 1]
    assert "2 of 2 answers identical" in capsys.readouterr().out


def timed(seconds, tokens=((1, 2, 3), (4, 5), (6,)), num_steps=1):
    return Timed([float(s) for s in seconds], [Answer(list(t), num_steps) for t in tokens])


def runs_of(**factors):
    """Two runs over three prompts: greedy takes 4, 5 and 6 seconds, an arm that divided by its factor."""
    factors = {name.replace("__", "."): factor for name, factor in factors.items()}
    runs = []
    for drift in (1.0, 1.1):
        run = {GREEDY: timed([4, 5, 6])}
        run |= {name: timed([s * drift / factor for s in (4, 5, 6)]) for name, factor in factors.items()}
        runs.append(run)
    return runs


ALL = dict(
    draft_model=1.2, prompt_lookup=1.3, bigram=0.5, recycling=2.0, suffix__cold=1.5, suffix__warm=1.5, combined=1.8
)


def chosen(**predicted):
    predicted = {name.replace("__", "."): gain for name, gain in (ALL | predicted).items()}
    return Choice({name: {} for name in predicted}, predicted, {}, "suffix and recycling in one tree")


def test_the_speedup_is_that_of_what_validation_chose_and_the_text_says_who_lost(results, capsys):
    runs, choice = runs_of(**ALL), chosen(combined=2.5)
    gains = show_gains(results, runs, choice, "bfloat16")
    assert results.metrics["speculative.speedup"]["value"] == pytest.approx(gains[COMBINED].ratio)
    assert results.metrics["speculative.speedup.recycling"]["value"] > results.metrics["speculative.speedup"]["value"]
    assert {f"speculative.speedup.{name}" for name in NAMES} <= set(results.metrics)
    assert results.metrics["speculative.speedup"]["n"] == 3 and gains[COMBINED].runs == 2
    assert "speculative.identical_share.bigram.bf16" in results.metrics
    capsys.readouterr()
    read_gains(runs, gains, choice, 1.5)
    text = " ".join(capsys.readouterr().out.split())
    assert "Validation chose: suffix and recycling in one tree." in text
    assert "Token Recycling came out higher here" in text and "picked afterwards" in text
    assert "The draft model loses to a guesser that nobody trained: Token Recycling is 1.67 times as fast" in text
    assert "Slower than no guesses: bigram table." in text
    assert "gave the suffix match nothing that can be seen" in text


def test_the_text_says_when_the_draft_wins_and_when_warm_helps(results, capsys):
    runs, choice = runs_of(**(ALL | dict(draft_model=3.0, suffix__warm=1.9))), chosen(draft_model=3.0)
    gains = show_gains(results, runs, choice, "float32")
    capsys.readouterr()
    read_gains(runs, gains, choice, 1.5)
    text = " ".join(capsys.readouterr().out.split())
    assert "Validation chose: draft model." in text and "The draft model is worth its training" in text
    assert "With the training split's answers and up to 2 of its own the suffix match is 1.27 times as fast." in text


def test_transformers_is_compared_on_its_own_step_and_on_ours(results, capsys):
    more = {
        "hf_assisted": 0.5,
        "hf_assisted__same_step": 1.0,
        "hf_prompt_lookup": 0.65,
        "hf_prompt_lookup__same_step": 1.3,
    }
    show_against_transformers(results, runs_of(**ALL, **more))
    value = {key: row["value"] for key, row in results.metrics.items()}
    assert value["speculative.vs_hf_assisted"] == pytest.approx(2.4)
    assert value["speculative.vs_hf_assisted.same_step"] == pytest.approx(1.2)
    assert value["speculative.vs_hf_prompt_lookup"] == pytest.approx(2.0)
    assert value["speculative.vs_hf_prompt_lookup.same_step"] == pytest.approx(1.0)
    assert "the step is worth 2.00x of it" in capsys.readouterr().out


def test_answers_that_guessing_changed_are_judged(bench, results, capsys):
    runs, examples = runs_of(**ALL), load_split("test", limit=3)
    runs[0]["bigram"].results[0] = Answer([9, 9], 1)
    record_answers(results, runs, NAMES, examples, bench.tokenizer, "bfloat16")
    assert len(results.prompts) == 3 * 8 and "bigram table: 1 answers differ" in capsys.readouterr().out


def test_transformers_settings_are_chosen_by_their_time(folder, bench, capsys):
    best, times = best_of_transformers(bench, str(folder / "draft"), prompts_of(bench, "validation", 1), tried=1)
    assert set(best) == {"hf_assisted", "hf_prompt_lookup"} and len(times) == 2
    show_transformers(best, times)
    assert "best for assisted generation: num tokens 3" in capsys.readouterr().out.replace("_", " ")


def test_the_verify_cost_is_shown_beside_the_equation(bench, capsys):
    seconds = {n: [0.01 * (1 + 0.1 * n)] * 3 for n in (1, 2, 5, 8)}
    cost = show_verify_cost(EQUATION, Steps("it", Shape.of(bench.model), "float32", 128, seconds))
    assert cost(1) == pytest.approx(0.011) and cost(3) == pytest.approx(0.013)
    assert "by the equation, ms" in capsys.readouterr().out
    show_verify_cost(EQUATION, Steps("it", Shape.of(bench.model), "float16", 128, seconds))
    assert "by the equation" not in capsys.readouterr().out


def answer(steps):
    """An answer of steps (guesses, accepted)."""
    prefill = Step("prefill", 0.0, 9, 0, NOTHING, (), (1,), (0.0,))
    later = [
        Step("decode", 0.0, g + 1, 9, chain([7] * g, "draft"), tuple(range(a)), (1,) * (a + 1), (0.0,) * (a + 1))
        for g, a in steps
    ]
    return Completion(9, [1] * (1 + sum(a + 1 for _, a in steps)), steps=[prefill, *later])


def test_a_draft_that_is_too_dear_is_called_so(capsys):
    good = [answer([(4, 4), (4, 3)])]
    assert show_acceptance(Recorded({}, good, 0.8), step_seconds) == pytest.approx(7 / 8)
    assert "Chains of" in capsys.readouterr().out
    show_acceptance(Recorded({}, good, 80.0), step_seconds)
    assert "no chain pays" in capsys.readouterr().out


def test_steps_are_shown_with_their_guessers_and_a_cross(bench, capsys):
    show_steps("draft", answer([(3, 1)] * 10), bench.tokenizer, most=4)
    text = capsys.readouterr().out
    assert "(draft)" in text and "(model)" in text and "× " in text and "... 7 more steps" in text
    assert "\u0336" not in text  # crossed out letter by letter, nobody can read it


def test_many_users_make_guesses_dearer(bench, results, capsys):
    shape = Shape.of(models.shape_only("llama-50m", "float32", "meta"))
    alone, crowd = (predict_elsewhere(EQUATION, shape, "float32", 0.8, 0.05, users) for users in (1, 64))
    assert alone[1] > crowd[1] >= 1 and alone[0] >= crowd[0]
    steps = Steps("it", Shape.of(bench.model), "float32", 128, {1: [0.01]})
    show_suppositions(results, EQUATION, steps, Recorded({}, [answer([(4, 3)])], 0.001))
    assert results.metrics["speculative.decode_speedup.llama_7b.predicted"]["kind"] == "predicted"


def test_sampling_is_checked_and_drawn(folder, bench, results, capsys):
    check_sampling(results, 5000, 0)
    assert all(row["holds"] for row in results.invariants.values())
    show_sampled(bench, str(folder / "draft"), prompts_of(bench, "validation", 1), 0)
    assert "drawn at temperature 1.5" in capsys.readouterr().out


def test_every_guesser_has_its_words(capsys):
    assert set(WORDS) >= set(NAMES)
    show_choice(chosen(combined=9.0))
    assert "suffix and recycling in one tree" in capsys.readouterr().out
