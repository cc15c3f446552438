"""Medusa: heads on the model's last hidden state guess the tokens after the next one (notebook 08).

Cai et al., "Medusa: Simple LLM Inference Acceleration Framework with Multiple Decoding Heads", 2024. The model's own
lm_head reads the hidden state at position t and says token t + 1; head i reads the same state and guesses token
t + 1 + i. Medusa-1 trains the heads on a frozen model. What `save` writes is what vLLM and TGI load, too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from helpers.decoding.generate import steps
from helpers.decoding.proposals import Proposal
from helpers.errors import CourseError
from helpers.models import HEADS, folder_of

ALSO = "medusa_heads.safetensors"  # the name in AWS's published notebook

Tree = Sequence[tuple[int, ...]]  # a node is the path to it: at each depth the rank of the head's guess, from 0
CHAIN: Tree = tuple((0,) * depth for depth in range(1, 6))  # each of five heads' best guess


def residual_block(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """x + SiLU(W x + b) for x (..., n, hidden), W (..., hidden, hidden) and b (..., 1, hidden) or (hidden,)."""
    return x + F.silu(x @ weight.transpose(-1, -2) + bias)


class MedusaHeads(nn.Module):
    """Residual blocks x + SiLU(W x + b), one stack a head, and an lm_head: the model's own for all, or one each.

    W and b begin as zero: a block is exactly the identity, and each head begins as the model's own lm_head. The first
    blocks of all heads read the same state, so they are one product; `few_rows` installs into it and a shared lm_head.
    """

    def __init__(self, lm_head: torch.Tensor, heads: int = 5, layers: int = 1, own_lm_heads: bool = False):
        """`lm_head` (vocabulary, hidden) is the model's; `own_lm_heads` begins with a copy of it for each head."""
        super().__init__()
        if heads < 1 or layers < 1:
            raise CourseError("Medusa needs at least one head of at least one layer.")
        (vocabulary, hidden), like = lm_head.shape, dict(dtype=lm_head.dtype, device=lm_head.device)
        self.count, self.layers, self.own_lm_heads = heads, layers, own_lm_heads
        self.first = nn.Linear(hidden, heads * hidden, **like)
        for p in self.first.parameters():
            nn.init.zeros_(p)
        self.weight = nn.ParameterList(torch.zeros(heads, hidden, hidden, **like) for _ in range(layers - 1))
        self.bias = nn.ParameterList(torch.zeros(heads, hidden, **like) for _ in range(layers - 1))
        if own_lm_heads:
            self.lm_head = nn.Parameter(lm_head.detach().repeat(heads, 1, 1))  # (heads, vocabulary, hidden)
        else:
            self.lm_head = nn.Linear(hidden, vocabulary, bias=False, device="meta")
            self.lm_head.weight = nn.Parameter(lm_head.detach(), requires_grad=False)

    def blocks(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Of each layer W (heads, hidden, hidden) and b (heads, hidden): what is trained, as it lies in the file."""
        hidden = self.first.in_features
        first = self.first.weight.view(self.count, hidden, hidden), self.first.bias.view(self.count, hidden)
        return [first, *zip(self.weight, self.bias)]

    def trained(self) -> list[nn.Parameter]:
        """The parameters that are the heads' own."""
        return [p for p in self.parameters() if p.requires_grad]

    def states(self, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden states (n, hidden) as each head's own: (heads, n, hidden)."""
        x = hidden + F.silu(self.first(hidden)).view(len(hidden), self.count, -1).transpose(0, 1)
        for weight, bias in zip(self.weight, self.bias):
            x = residual_block(x, weight, bias[:, None])
        return x

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits (heads, n, vocabulary) from the last hidden states (n, hidden), after the model's final norm."""
        x = self.states(hidden)
        return torch.bmm(x, self.lm_head.transpose(1, 2)) if self.own_lm_heads else self.lm_head(x)


def config_of(heads: MedusaHeads, base: str) -> dict:
    """The configuration that vLLM and TGI read; any other key would mislead one of them."""
    vocabulary, hidden = _lm_head(heads).shape[-2:]
    small = {} if heads.own_lm_heads else {"original_lm_head": True}
    return {"model_type": "medusa", "medusa_num_heads": heads.count, "medusa_num_layers": heads.layers,
            "base_model_name_or_path": base, "hidden_size": hidden, "vocab_size": vocabulary,
            "medusa_fc_bias": True} | small  # fmt: skip


def _lm_head(heads: MedusaHeads) -> torch.Tensor:
    return heads.lm_head if heads.own_lm_heads else heads.lm_head.weight


def save(heads: MedusaHeads, place: Path, base: str, with_lm_head: bool = True) -> None:
    """Write config.json and the weights in two bytes a number; heads that share the model's lm_head bring a copy of it
    for other programs, unless `with_lm_head` is false (the course reads it from the model)."""
    place.mkdir(parents=True, exist_ok=True)
    layers, found = heads.layers, {}
    for i in range(heads.count):
        for j, (weight, bias) in enumerate(heads.blocks()):
            found[f"{i}.{j}.linear.weight"], found[f"{i}.{j}.linear.bias"] = weight[i], bias[i]
        if heads.own_lm_heads:
            found[f"{i}.{layers}.weight"] = heads.lm_head[i]
    if with_lm_head and not heads.own_lm_heads:
        found[f"0.{layers}.weight"] = _lm_head(heads)
    save_file({k: v.detach().to(torch.bfloat16).contiguous() for k, v in found.items()}, place / HEADS)
    (place / HEADS).chmod(0o644)
    (place / "config.json").write_text(json.dumps(config_of(heads, base), indent=1) + "\n", encoding="utf-8")


def load(place: str | Path, model) -> MedusaHeads:
    """The heads of the course ("medusa") or in a folder, for this model, in its dtype. Only safetensors are read.

    Raises:
        CourseError: where the files are missing or damaged, or made for another width or vocabulary.
    """
    place, lm_head = Path(folder_of(place)), model.get_output_embeddings().weight
    try:
        config = json.loads((place / "config.json").read_text(encoding="utf-8"))
        count, layers = int(config["medusa_num_heads"]), int(config["medusa_num_layers"])
        found = load_file(next(p for name in (HEADS, ALSO) if (p := place / name).exists()))
    except (OSError, ValueError, KeyError, TypeError, StopIteration, SafetensorError) as error:
        reason = f"{type(error).__name__}: {error}".strip(": ")
        raise CourseError(f"There are no Medusa heads to read in {place} ({reason}): train_medusa_heads makes some.") \
            from None  # fmt: skip
    sizes = config.get("vocab_size", lm_head.shape[0]), config.get("hidden_size", lm_head.shape[1])
    if sizes != tuple(lm_head.shape):
        theirs, ours = (f"{v} tokens and width {h}" for v, h in (sizes, lm_head.shape))
        raise CourseError(f"These heads were made for a model of {theirs}, this one has {ours}: train some for it.")
    heads = MedusaHeads(lm_head, count, layers, own_lm_heads=not config.get("original_lm_head", False))
    try:
        with torch.no_grad():
            for i in range(count):
                for j, (weight, bias) in enumerate(heads.blocks()):
                    weight[i].copy_(found[f"{i}.{j}.linear.weight"])
                    bias[i].copy_(found[f"{i}.{j}.linear.bias"])
                if heads.own_lm_heads:
                    heads.lm_head[i].copy_(found[f"{i}.{layers}.weight"])
    except (KeyError, RuntimeError) as error:
        told = f"config.json promises {count} heads of {layers} layers and width {lm_head.shape[1]}"
        raise CourseError(f"{told}, and the weights don't fit that ({error}): export the heads again.") from None
    return heads.eval()


class Medusa:
    """Proposes a tree of what the heads guess: node (0, 2) follows the first head's best guess with the second head's
    third best."""

    def __init__(self, heads: MedusaHeads, tree: Tree = CHAIN):
        nodes = sorted(tree)  # the best path first, in one piece: where it is right, the cache has nothing to move
        place = {(): -1} | {path: i for i, path in enumerate(nodes)}
        missing = [path for path in nodes if path[:-1] not in place]
        if missing or len(place) != len(nodes) + 1 or () in nodes:
            raise CourseError(f"A tree holds each node once and the way to it, too: {missing or nodes} lacks that.")
        if (deepest := max(map(len, nodes), default=0)) > heads.count:
            raise CourseError(f"The tree is {deepest} deep, and there are {heads.count} heads: take a flatter tree.")
        self.heads = heads
        self.width = 1 + max((rank for path in nodes for rank in path), default=0)
        self.at = [(len(path) - 1, path[-1]) for path in nodes]  # which head, which of its guesses
        self.parents = [place[path[:-1]] for path in nodes]
        self.names = [f"head {len(path)}" for path in nodes]

    def propose(self, tokens: Sequence[int], hidden: torch.Tensor) -> Proposal:
        ranked = self.heads(hidden[None])[:, 0].topk(self.width, dim=-1).indices.tolist()
        return Proposal([ranked[head][rank] for head, rank in self.at], self.parents, self.names)


@torch.inference_mode()
def medusa(model, input_ids: torch.Tensor, generation_config=None, stopping_criteria=None, logits_processor=None,
           streamer=None, proposer=None, **unused) -> torch.Tensor:  # fmt: skip
    """For transformers: `model.generate(ids, custom_generate=medusa, proposer=Medusa(heads, tree))`; greedy, 1 prompt.

    Returns:
        (1, prompt and answer): token ids, as `generate` returns them.
    """
    if len(input_ids) != 1 or proposer is None:
        raise CourseError("custom_generate=medusa takes one prompt at a time, and proposer=Medusa(heads, tree).")
    if generation_config.do_sample or len(logits_processor or ()):
        raise CourseError("custom_generate=medusa decodes greedily: leave out sampling and logits processors.")
    tokens, most = input_ids[0].tolist(), generation_config.max_length - input_ids.shape[1]
    end = generation_config.eos_token_id
    end = None if end is None else [end] if isinstance(end, int) else list(end)
    written = (
        t for s in steps(model, list(tokens), max_new_tokens=most, eos=end, proposer=proposer) for t in s.emitted
    )
    for token in written:  # one by one: a criterion may be met in the middle of a step
        tokens.append(token)
        if streamer is not None:
            streamer.put(torch.tensor([token]))
        now = torch.tensor([tokens], device=input_ids.device)
        if stopping_criteria is not None and bool(stopping_criteria(now, None).all()):
            break
    if streamer is not None:
        streamer.end()
    return torch.tensor([tokens], device=input_ids.device)
