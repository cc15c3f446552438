"""A step of a model built like Llama as one function in C++ (llama_step.cpp), for a CPU.

What the fused step (fused_llama.py) does in 400 operations of PyTorch is here one call: no time between operations,
weights read at the memory's speed, and sums in the same order whatever else is read with a token (notebook 00c).
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from ctypes import c_float, c_int32, c_void_p
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from helpers.decoding.feed import Feed
from helpers.decoding.kv_cache import KVCache
from helpers.errors import CourseError
from helpers.kernels.fused_llama import FusedLlama, Output, check_kind, too_long
from helpers.kernels.native import library
from helpers.kernels.native.matrices import bias, matrix
from helpers.kernels.native.tiles import DTYPES, LANES, ROWS, Codes, Weight, described, most_bytes, tiles
from helpers.measuring.memory import HugePages
from helpers.weights.quantization.linear import Stored

HEAD_SIZES = (1, 2, 3, 4, 6, 8, 16)  # vectors of LANES lanes


class _Layer(ctypes.Structure):
    _fields_ = [
        *((name, Weight) for name in "qkv out gate_up down".split()),
        *((name, c_void_p) for name in "qkv_bias out_bias gate_up_bias down_bias".split()),
        *((name, c_void_p) for name in "norm_1 norm_2 query_norm key_norm".split()),
    ]


class _Model(ctypes.Structure):
    _fields_ = [
        *((name, c_int32) for name in "layers hidden heads kv_heads size inner vocabulary".split()),
        *((name, c_float) for name in "epsilon head_epsilon scale".split()),
        *((name, c_void_p) for name in "last_norm cos sin".split()),
        ("lm_head", Weight),
        ("layer", c_void_p),
    ]


class _Step(ctypes.Structure):
    _fields_ = [
        *((name, c_int32) for name in "tokens wanted_tokens held block_size width threads".split()),
        *((name, c_void_p) for name in "x token table wanted keys values hidden logits".split()),
    ]


class NativeLlama(nn.Module):
    """Takes a model's place in the decoders, as FusedLlama does; made of a model or its fused step. Logits are float32.
    All weights but the embedding are copies. Quantized layers are multiplied as they are stored.

    Raises:
        CourseError: the model is of another kind, or this machine has no compiler.
    """

    returns_hidden = reads_feeds = True  # as a decoder asks for

    def __init__(self, model: nn.Module):
        super().__init__()
        check_kind(model.config)
        if reason := why_not(model):
            raise CourseError(f"The step in C++ can't be had: {reason}.")
        fused = model if isinstance(model, FusedLlama) else FusedLlama(model)
        self.config, self.generation_config = fused.config, fused.generation_config
        self.dtype, self.device, self.token_ids = fused.dtype, fused.device, fused.token_ids
        self.embed, self.lm_head = fused.embed, fused.lm_head
        self._step = library.function("step", self.dtype)
        self._pointers: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()  # to each cache's tensors
        self.weight_bytes = 0  # that a step reads, with scales
        self._held: list = []  # what the structures point to
        linears = [m for layer in fused.layers for m in (layer.qkv, layer.out, layer.gate_up, layer.down)]
        self._room = HugePages(sum(most_bytes(matrix(linear)) for linear in (*linears, fused.lm_head)))
        first, (weight, epsilon) = fused.layers[0], fused.last_norm
        self.kv_heads, self.size = first.kv_heads, first.size
        inner = first.down.in_features
        self._model = _Model(
            layers=len(fused.layers),
            hidden=len(weight),
            heads=first.heads,
            kv_heads=first.kv_heads,
            size=first.size,
            inner=inner,
            vocabulary=self.lm_head.out_features,
            epsilon=epsilon,
            head_epsilon=first.head_norm[1] if first.head_norm else 0.0,
            scale=first.scale,
            last_norm=self._numbers(weight),
            cos=self._numbers(fused.cos),
            sin=self._numbers(fused.sin),
            lm_head=self._tiles(matrix(self.lm_head)),
        )
        layers = (_Layer * len(fused.layers))(*(self._layer(layer, inner) for layer in fused.layers))
        self._model.layer = ctypes.addressof(layers)
        self._held.append(layers)
        self.positions = len(fused.cos)
        self.eval()

    def _apply(self, *args, **kwargs):
        raise CourseError("A step in C++ stays as it was made: load the model in another dtype, and take that.")

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def _layer(self, layer: nn.Module, inner: int) -> _Layer:
        query, key = None, None
        if layer.head_norm:
            query, key = layer.head_norm[0][0], layer.head_norm[0][-1]
        linears = layer.qkv, layer.out, layer.gate_up, layer.down
        (qkv, out, gate_up, down), biases = map(matrix, linears), [bias(linear) for linear in linears]
        alternating = partial(_alternating, inner=inner)
        gate_up = gate_up.with_rows(alternating) if isinstance(gate_up, Codes) else alternating(gate_up)
        biases[2] = None if biases[2] is None else alternating(biases[2])
        if not isinstance(down, Codes):
            down = F.pad(down, (0, -inner % LANES))
        return _Layer(
            *map(self._tiles, (qkv, out, gate_up, down)),
            *(self._numbers(b, ROWS) for b in biases),
            *(self._numbers(w) for w in (layer.norms[0][0], layer.norms[1][0], query, key)),
        )

    def _numbers(self, tensor: torch.Tensor | None, to: int = LANES) -> int | None:
        """The address of a float32 copy, filled up to a multiple of `to`."""
        if tensor is None:
            return None
        copied = tensor.detach().float().flatten()
        self._held.append(F.pad(copied, (0, -len(copied) % to)).contiguous())
        return self._held[-1].data_ptr()

    def _tiles(self, weight: torch.Tensor | Codes) -> Weight:
        """A copy of a weight in tiles."""
        in_tiles = tiles(weight, self._room)
        self._held.append((in_tiles, getattr(weight, "levels", None)))
        self.weight_bytes += in_tiles.nbytes
        return described(weight, in_tiles)

    @torch.inference_mode()
    def read(self, feeds: Sequence[Feed], starts: Sequence[int], cache: KVCache) -> Output:
        """One run over feeds that have their places in the cache, one token after the other: nothing is filled up.

        Returns:
            logits (wanted, vocabulary) and hidden states (wanted, hidden) of the tokens that all feeds want answers to.
        """
        ids, tokens, wanted = [], [], []
        for sequence, (feed, start) in enumerate(zip(feeds, starts)):
            first, certain = len(ids), feed.num_certain
            ids += feed.tokens
            tokens += [(sequence, start + k, start + k, start + k + 1, -1) for k in range(certain)]
            for k, parent in enumerate(feed.parents, certain):
                ancestor = first + certain + parent if parent >= 0 else -1
                tokens.append((sequence, start + feed.position_offsets[k], start + k, start + certain, ancestor))
            wanted += range(len(ids) - feed.num_wanted, len(ids))
        return self._run(torch.tensor(ids), tokens, wanted, cache.blocks_of_step(), cache)

    @torch.inference_mode()
    def forward(
        self, input_ids: torch.Tensor, past_key_values: KVCache | None = None, logits_to_keep: int = 0, **unused
    ) -> Output:
        """As transformers' models, for input_ids (batch_size, n) that go on where the cache ends, in order. Guesses and
        sequences of unlike lengths are read by `read`.

        Raises:
            CourseError: a mask, or other positions; the cache stays as it was.
        """
        if unused.get("attention_mask") is not None or unused.get("position_ids") is not None:
            raise CourseError("The step in C++ reads masks and positions as feeds: call forward(feeds, cache).")
        batch_size, n = input_ids.shape
        cache = KVCache.for_model(self, n, batch_size) if past_key_values is None else past_key_values
        start, keep = cache.get_seq_length(), min(logits_to_keep or n, n)
        feeds = [Feed(sequence, ids, num_logits=keep) for sequence, ids in enumerate(input_ids.tolist())]
        cache.begin_by_itself(batch_size, n)
        try:
            logits, hidden = self.read(feeds, [start] * batch_size, cache)
        except BaseException:
            cache.rollback(cache.feeds, cache.starts)
            raise
        return Output(logits.view(batch_size, keep, -1), hidden.view(batch_size, keep, -1))

    def _check_positions(self, length: int) -> None:
        if length > self.positions:
            raise too_long(self.positions)

    def _run(
        self, ids: torch.Tensor, tokens: list[tuple], wanted: list[int], blocks: list[list[int]], cache: KVCache
    ) -> Output:
        """`tokens` are as Token in C++; `blocks` each sequence's in the cache."""
        of_tokens = torch.tensor(tokens, dtype=torch.int32)
        self._check_positions(1 + int(of_tokens[:, 1].max()))
        keys, values = self._tensors_of(cache)
        width, vocabulary, hidden_size = max(map(len, blocks)), self._model.vocabulary, self._model.hidden
        if width > 1 and cache.block_size % LANES:
            raise CourseError(
                f"The step in C++ reads blocks of a multiple of {LANES} tokens: make the cache with such."
            )
        table = torch.tensor([[*of_one, *[0] * (width - len(of_one))] for of_one in blocks], dtype=torch.int32)
        wanted = torch.tensor(wanted, dtype=torch.int32)
        x = F.pad(self.embed(ids).float(), (0, -hidden_size % ROWS)).contiguous()
        hidden = torch.empty(len(wanted), hidden_size, dtype=self.dtype)
        logits = torch.empty(len(wanted), vocabulary + -vocabulary % ROWS)
        step = _Step(
            len(tokens),
            len(wanted),
            1 + int(of_tokens[:, 2].max()),
            cache.block_size,
            width,
            torch.get_num_threads(),
            *(tensor.data_ptr() for tensor in (x, of_tokens, table, wanted)),
            ctypes.addressof(keys),
            ctypes.addressof(values),
            hidden.data_ptr(),
            logits.data_ptr(),
        )
        self._step(ctypes.byref(self._model), ctypes.byref(step))
        return Output(logits[:, :vocabulary], hidden)

    def _tensors_of(self, cache: KVCache) -> tuple[ctypes.Array, ctypes.Array]:
        """The addresses of the cache's keys and values, of each layer; it gets its tensors here if it has none."""
        known = self._pointers.get(cache)
        tensors = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]
        if known and all(tensor is before for tensor, before in zip(tensors, known[0])):
            return known[1:]
        like = torch.empty(0, self.kv_heads, 0, self.size, dtype=self.dtype)
        for layer in cache.layers:
            if not layer.is_initialized:
                layer.lazy_initialization(like, like)
        tensors = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]
        shape = cache.num_blocks, self.kv_heads, cache.block_size, self.size
        fits = all(t.shape == shape and t.dtype == self.dtype and t.is_contiguous() and t.is_cpu for t in tensors)
        if not fits or len(cache.layers) != self._model.layers:
            raise CourseError("This cache was filled by another model: make one with KVCache.for_model.")
        addresses = c_void_p * len(cache.layers)
        arrays = (addresses(*(tensor.data_ptr() for tensor in tensors[place::2])) for place in (0, 1))
        self._pointers[cache] = tensors, *arrays
        return self._pointers[cache][1:]


def why_not(model: nn.Module) -> str | None:
    """Why a model built like Llama can't have its step in C++ here, with the remedy; None where it can."""
    config, linears = model.config, [m for m in model.modules() if isinstance(m, nn.Linear)]
    numbers = DTYPES.get(model.dtype)
    if model.device.type != "cpu" or numbers is None:
        return "it is written for a CPU, in float32 and bfloat16"
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if size % (numbers * LANES) or size // (numbers * LANES) not in HEAD_SIZES or config.hidden_size % numbers:
        return f"its attention takes heads of a multiple of {numbers * LANES} numbers, and this model's have {size}"
    if any(type(linear) is not nn.Linear for linear in linears):
        return "it is written for dense weights: merge adapters first"
    if any(linear.weight.dtype != model.dtype for linear in linears):
        return f"all weights must be {model.dtype}: cast the model as a whole"
    if any(isinstance(m, Stored) for m in model.modules()) and (numbers != 2 or config.intermediate_size % LANES):
        return f"quantized weights are read in bfloat16, and an inner size that is a multiple of {LANES}"
    if model.get_output_embeddings().bias is not None:
        return "it is written for an lm_head without a bias"
    return library.why_not()


def _alternating(gate_up: torch.Tensor, inner: int) -> torch.Tensor:
    """LANES rows of the gate, the same ones of `up`, and so on; filled up to whole vectors."""
    halves = [F.pad(half, (0, 0) * (half.dim() - 1) + (0, -inner % LANES)) for half in gate_up.detach().split(inner)]
    return torch.stack([half.unflatten(0, (-1, LANES)) for half in halves], 1).flatten(0, 2)
