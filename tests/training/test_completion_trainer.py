"""The loss of learned tokens alone is the loss that the whole logits give."""

import torch
from torch.nn import functional as F
from transformers import TrainingArguments

from helpers.training.completion_trainer import CompletionTrainer
from helpers.training.completions import IGNORED, Encoded
from helpers.training.packing import collate, tree_of
from tests.tiny_models import tiny

ROW = [tree_of([Encoded([5, 9, 2, 7, 1], [IGNORED] * 3 + [7, 1]), Encoded([5, 9, 4, 8], [IGNORED] * 3 + [8])])]


def test_only_learned_tokens_have_logits_and_the_loss_is_the_same(tmp_path):
    model, batch = tiny("llama").float(), collate([ROW], 0)
    arguments = TrainingArguments(str(tmp_path), use_cpu=True, report_to=[], remove_unused_columns=False)
    trainer = CompletionTrainer(model, arguments)
    loss, outputs = trainer.compute_loss(model, dict(batch), return_outputs=True)
    assert outputs.logits.shape == (3, model.config.vocab_size)
    labels = batch.pop("labels")
    logits = model(**batch, use_cache=False).logits
    expected = F.cross_entropy(logits[0, :-1], labels[0, 1:], ignore_index=IGNORED)
    torch.testing.assert_close(loss, expected)
    wrong = F.cross_entropy(logits[0], labels[0], ignore_index=IGNORED)  # the planted mistake: of the token itself
    assert not torch.isclose(loss, wrong)
    accumulated = trainer.compute_loss(model, dict(batch, labels=labels), num_items_in_batch=torch.tensor(6))
    torch.testing.assert_close(accumulated, expected / 2)
