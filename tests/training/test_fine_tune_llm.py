"""The fine-tuning script: what it learns, leaves and resumes; from the shell, torchrun, and as SageMaker runs it."""

import json
import shutil

import pytest
import torch

from helpers import models
from helpers.errors import CourseError
from helpers.text_to_sql.dataset import load_split
from helpers.training import trainer_callback
from helpers.training.fine_tune_llm import Arguments, prepared, train
from tests.training.tiny_llama import save_tiny_llama
from tests.training.torchrun import options, two_processes


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny random model with the course's tokenizer, and a training file of some examples."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_tiny_llama(folder)
    lines = [{"context": e.context, "question": e.question, "answer": e.answer} for e in load_split("train", limit=40)]
    for split in ("train", "validation"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def of_base(base):
    """The training files that lie beside the tiny model."""
    return dict(train_dataset_path=str(base), validation_dataset_path=str(base))


def arguments(base, out, **more):
    given = of_base(base) | dict(
        model_id=str(base),
        output_dir=str(out),
        per_device_train_batch_size=2,
        lora_r=4,
        eval_samples=0,
        max_steps=3,
        lr=0.01,
        bf16="False",
    )
    return Arguments(**given | more)


@pytest.mark.parametrize("method, lr", [("lora", 0.01), ("llama_adapter", 0.3), ("full", 0.01)])  # gates open slowly
def test_the_loss_falls_and_a_model_is_left(base, tmp_path, method, lr):
    report = train(arguments(base, tmp_path, method=method, lr=lr, max_steps=12, warmup_steps=1))
    assert report["loss"][-1] < report["loss"][0] and report["steps"] == 12
    assert json.loads((tmp_path / "report.json").read_text()) == report
    if method != "llama_adapter":
        model, _ = models.load(tmp_path / "merged")
        assert model.config.num_hidden_layers == 2
    if method == "lora":
        adapted, _ = models.load(tmp_path / "adapter")
        for a, b in zip(adapted.parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(a, b)
        assert list((tmp_path / "tensorboard").rglob("events*"))


def test_a_killed_run_resumes_and_ends_as_if_nothing_had_happened(base, tmp_path):
    whole = train(arguments(base, tmp_path / "whole", max_steps=6, save_steps=3))
    train(arguments(base, tmp_path / "cut", max_steps=6, save_steps=3))
    folder = tmp_path / "cut" / "checkpoints"
    assert [p.name for p in folder.glob("checkpoint-*")] == ["checkpoint-6"]
    # The state after three steps, as a kill in the middle leaves it:
    shutil.rmtree(tmp_path / "cut")
    stopper = _StopAfter(3)
    with pytest.raises(KeyboardInterrupt), stopper:
        train(arguments(base, tmp_path / "cut", max_steps=6, save_steps=3))
    assert [p.name for p in folder.glob("checkpoint-*")] == ["checkpoint-3"]
    again = train(arguments(base, tmp_path / "cut", max_steps=6, save_steps=3))
    assert again["steps"] == 6
    one, other = (models.load(tmp_path / name / "merged")[0] for name in ("whole", "cut"))
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    assert again["loss"] == pytest.approx(whole["loss"])


def test_training_goes_on_with_an_adapter(base, tmp_path):
    first = train(arguments(base, tmp_path / "first", max_steps=12, warmup_steps=1))
    adapter = str(tmp_path / "first" / "adapter")
    more = train(arguments(base, tmp_path / "more", begin_with=adapter, max_steps=1, lr=0.0))
    merged = train(arguments(tmp_path / "first" / "merged", tmp_path / "on", **of_base(base), max_steps=1, lr=0.0))
    assert more["loss"] == pytest.approx(merged["loss"]) and more["loss"][0] < first["loss"][0]  # of the same rows
    one, other = (models.load(tmp_path / name / "merged")[0] for name in ("first", "more"))
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    with pytest.raises(CourseError, match="is no adapter"):
        train(arguments(base, tmp_path / "wrong", begin_with=str(base)))


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("method", ["lora", "llama_adapter"])
def test_nobody_asks_the_hub_when_an_adapter_is_saved(base, tmp_path, method):
    model = prepared(arguments(base, tmp_path, method=method))
    model.peft_config["default"].base_model_name_or_path = "base"  # one of the course's names, no folder
    model.save_pretrained(tmp_path)
    assert (tmp_path / "adapter_model.safetensors").exists()


class _StopAfter:
    """Interrupts a training after so many steps, once the checkpoint is written."""

    def __init__(self, steps):
        self.steps = steps

    def __enter__(self):
        from transformers import Trainer

        self.save, steps = Trainer._save_checkpoint, self.steps

        def save_and_stop(trainer, *given, **more):
            self.save(trainer, *given, **more)
            if trainer.state.global_step == steps:
                raise KeyboardInterrupt

        Trainer._save_checkpoint = save_and_stop

    def __exit__(self, *_):
        from transformers import Trainer

        Trainer._save_checkpoint = self.save


def test_validation_answers_are_judged_by_running_them(base, tmp_path, monkeypatch, capsys):
    right = [e.answer for e in load_split("train", limit=4)]
    monkeypatch.setattr(
        trainer_callback, "answer_in_batches", lambda model, tokenizer, prompts: [right[0], "", *right[2:4]]
    )
    report = train(arguments(base, tmp_path, epochs=1.0, max_steps=-1, eval_samples=4))
    assert report["accuracy"] == [0.75] and "75.0% of 4 validation answers right" in capsys.readouterr().out
    counts = [entry.split(" of ") for entry in report["right_by_kind"].values()]
    assert [sum(map(int, column)) for column in zip(*counts)] == [3, 4]


def test_accumulating_gradients_is_a_larger_batch_and_checkpointing_changes_nothing(base, tmp_path):
    large = train(arguments(base, tmp_path / "a", per_device_train_batch_size=2, max_steps=2))
    small = train(
        arguments(
            base,
            tmp_path / "b",
            per_device_train_batch_size=1,
            gradient_accumulation_steps=2,
            gradient_checkpointing=True,
            max_steps=2,
        )
    )
    assert small["loss"] == pytest.approx(large["loss"], rel=1e-3)


def test_the_shipped_adapter_has_a_card_without_paths_of_this_machine(base, tmp_path):
    train(arguments(base, tmp_path / "run", export=str(tmp_path / "shipped")))
    card = (tmp_path / "shipped" / "card.json").read_text()
    assert str(tmp_path / "run") not in card and json.loads(card)["steps"] == 3
    model, _ = models.load(tmp_path / "shipped", "bfloat16")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert models.parts_of(tmp_path / "shipped") == [str(tmp_path / "shipped"), str(base)]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (dict(method="prefix"), "--method prefix is unknown; there are lora, qlora, llama_adapter, full"),
        (dict(answers="prose"), "--answers prose is unknown; there are sql, explained"),
        (dict(bf16="yes"), "--bf16 yes is unknown; there are auto, True, False"),
        (dict(more_examples=5), "leave --train_dataset_path out"),
        (dict(method="full", begin_with="fine-tuned"), "--begin_with takes a LoRA adapter"),
        (dict(max_seq_length=20), "give a larger --max_seq_length"),
    ],
)
def test_bad_arguments_get_one_sentence(base, tmp_path, options, says):
    with pytest.raises(CourseError, match=says.replace("-", r"\-")):
        train(arguments(base, tmp_path, **options))


def test_another_run_s_folder_is_refused_and_a_torn_checkpoint_passed_over(base, tmp_path):
    with pytest.raises(KeyboardInterrupt), _StopAfter(1):
        train(arguments(base, tmp_path, save_steps=1))
    (tmp_path / "checkpoints" / "checkpoint-2").mkdir()  # killed while it was written
    assert train(arguments(base, tmp_path, save_steps=1))["steps"] == 3
    with pytest.raises(CourseError, match="holds another run: repeat its arguments"):
        train(arguments(base, tmp_path, save_steps=1, lr=0.5))


@pytest.mark.parametrize("method", ["full", "llama_adapter"])
def test_only_adapters_that_merge_are_exported(base, tmp_path, method):
    with pytest.raises(CourseError, match="adapters that can be merged"):
        train(arguments(base, tmp_path, method=method, export=str(tmp_path / "x")))


def test_missing_validation_questions_are_found_before_the_training(base, tmp_path):
    (tmp_path / "validation.jsonl").write_text("")
    with pytest.raises(CourseError, match="no validation examples"):
        train(arguments(base, tmp_path, validation_dataset_path=str(tmp_path), eval_samples=5))


def test_two_processes_under_torchrun_end_with_the_weights_of_one(base, tmp_path):
    """Data, model and checkpoints where a training job has them. Two processes with a sequence each see what one
    process with two sees; their sequences have different numbers of labels, so a mean of two means is another."""
    common = dict(model_id=str(base), max_steps=3, eval_samples=0, bf16="False", lora_r=4, lr=0.01, max_seq_length=320)
    environment = dict(SM_CHANNEL_TRAIN=str(base), SM_CHANNEL_VALIDATION=str(base), SM_MODEL_DIR=str(tmp_path / "two"))
    given = common | dict(per_device_train_batch_size=1, checkpoint_dir=tmp_path / "checkpoints")
    two_processes(["-m", "helpers.training.fine_tune_llm", *options(given)], **environment)
    report = json.loads((tmp_path / "two" / "report.json").read_text())
    assert report["steps"] == 3 and list((tmp_path / "checkpoints").glob("checkpoint-*"))

    one_process = dict(train_dataset_path=str(base), per_device_train_batch_size=2, output_dir=str(tmp_path / "one"))
    train(Arguments(**common | one_process))
    one, two = (models.load(tmp_path / name / "merged")[0] for name in ("one", "two"))
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
