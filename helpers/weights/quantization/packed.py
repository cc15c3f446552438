"""Integer weights that are multiplied as they are stored: PyTorch's packed kernels for CPUs (notebook 02).

For one token a step takes the time in which its weights come from memory, and codes are a half or a quarter of them.
The kernels turn codes into numbers in registers, so that nothing wider is ever written. For many tokens arithmetic
decides, and there they lose to the product of bfloat16: from `widen_from` tokens on a layer is widened at each call,
which takes room for one layer and is forgotten again. (A bfloat16 copy kept beside would be faster still, and would
cost two bytes a weight more: then nothing is saved.)

Both kernels want bfloat16 inputs and bfloat16 scales. Groups have such scales already; those of channels are rounded,
by at most a 256th, unless the codes were made for rounded ones (`rounded_for_kernels`). Layers are also widened for
inputs of another dtype, for which there is no fast kernel. Offsets, which zero points become, are rounded as well.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helpers.errors import CourseError
from helpers.weights.quantization.integer import Grid, Group, IntegerLinear, grouped, weight_grid
from helpers.weights.quantization.linear import Stored

GROUPS = (256, 128, 64, 32)  # the sizes that the four-bit kernel knows
ALIGNMENT = 64  # bytes: the eight-bit kernel loads 32 at a time, and crashes where they don't begin at a multiple of 32


def aligned(x: Tensor) -> Tensor:
    """x with its rows one after the other, from an address that the kernels can load from."""
    x = x.contiguous()
    return x if x.data_ptr() % ALIGNMENT == 0 else x.clone()


class Packed(Stored):
    """A linear layer for inputs (..., in): few tokens go to a packed kernel, `widen_from` and more to the widened
    weight."""

    widen_from = 64

    def __init__(self, layer: IntegerLinear):
        super().__init__()
        self.in_features, self.out_features, self.bias = layer.in_features, layer.out_features, layer.bias

    def packed_product(self, rows: Tensor) -> Tensor:
        """rows (n, in) times the weight, by the kernel: (n, out)."""
        raise NotImplementedError

    def widened_product(self, rows: Tensor) -> Tensor:
        """The same product with the weight in the dtype of the rows."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 2:
            return self(x.reshape(-1, self.in_features)).reshape(*x.shape[:-1], self.out_features)
        few = x.dtype == torch.bfloat16 and len(x) < self.widen_from and x.is_cpu
        y = self.packed_product(x) if few else self.widened_product(x)
        return y if self.bias is None else y + self.bias


class PackedInt8(Packed):
    """A byte a weight, a scale a channel: y = (x codes^T) scales.

    CourseError where the codes aren't eight bits, symmetric, a scale a channel, or the inputs no multiple of 16.
    """

    def __init__(self, layer: IntegerLinear):
        super().__init__(layer)
        check_int8(layer)
        self.register_buffer("codes", aligned(layer.integer_codes().clone()))
        self.register_buffer("scales", layer.scales.flatten().bfloat16())

    def packed_product(self, rows: Tensor) -> Tensor:
        return torch._weight_int8pack_mm(aligned(rows), self.codes, self.scales)

    def widened_product(self, rows: Tensor) -> Tensor:
        # Codes are exact in bfloat16, which has eight bits: only the output is rounded.
        return F.linear(rows, self.codes.to(rows.dtype)) * self.scales.to(rows.dtype)

    def dequantized(self) -> Tensor:
        """The weight (out, in) that it multiplies by, in float32."""
        return self.codes.float() * self.scales.float()[:, None]


class PackedInt4(Packed):
    """Half a byte a weight, a scale and an offset for each group of a row: weight = (code - 8) * scale + offset.

    CourseError where the codes aren't four bits, the kernel has no groups of such a size, or the outputs are no
    multiple of 64.
    """

    def __init__(self, layer: IntegerLinear):
        super().__init__(layer)
        scales = layer.scales.float()
        size = layer.in_features // scales.shape[1]
        self.group = next((group for group in GROUPS if size % group == 0), 0)
        block, _ = int4_layout()
        if layer.bits != 4 or not self.group or layer.out_features % block:
            raise CourseError(
                f"The four-bit kernel takes four bits, groups of {', '.join(map(str, GROUPS))} and outputs that are a "
                f"multiple of {block}, not {layer.bits} bits, groups of {size} and {layer.out_features} outputs: "
                "quantize with a group that it takes, or leave this layer as it is."
            )
        codes = layer.integer_codes().int() + (8 if layer.symmetric else 0)
        offsets = torch.zeros_like(scales) if layer.symmetric else (8 - layer.zero_points.float()) * scales
        pairs = torch.stack([scales, offsets], -1).repeat_interleave(size // self.group, 1)
        self.register_buffer("packed", torch._convert_weight_to_int4pack_for_cpu(codes, 1))
        self.register_buffer("scales", pairs.transpose(0, 1).contiguous().bfloat16())  # (groups, out, 2)

    def packed_product(self, rows: Tensor) -> Tensor:
        return torch._weight_int4pack_mm_for_cpu(rows.contiguous(), self.packed, self.group, self.scales)

    def widened(self, dtype: torch.dtype) -> Tensor:
        """The weight as the kernel keeps it, in blocks of outputs: (blocks, in, outputs of a block)."""
        block, order = int4_layout()
        codes = unpacked_int4(self.packed, block, order).to(dtype).sub_(8).unflatten(1, (-1, self.group))
        pairs = self.scales.to(dtype).unflatten(1, (-1, block)).permute(3, 1, 0, 2).contiguous()
        scales, offsets = pairs[:, :, :, None]  # (blocks, groups, 1, block)
        return torch.addcmul(offsets, codes, scales).flatten(1, 2)

    def widened_product(self, rows: Tensor) -> Tensor:
        weight = self.widened(rows.dtype)
        y = torch.bmm(rows.expand(len(weight), -1, -1), weight)  # (blocks, n, block)
        return y.transpose(0, 1).reshape(len(rows), -1)

    def dequantized(self) -> Tensor:
        """The weight (out, in) that it multiplies by, in float32."""
        return self.widened(torch.float32).transpose(1, 2).reshape(self.out_features, self.in_features)


def unpacked_int4(packed: Tensor, block: int, order: str) -> Tensor:
    """Codes 0 to 15 of a packed weight, (blocks, in, block): a block's byte holds two outputs, which are neighbours
    ("pairs") or half a block apart ("halves")."""
    in_features = 2 * packed.shape[1]
    of_blocks = packed.view(-1, in_features, block // 2)
    nibbles = of_blocks & 15, of_blocks >> 4
    return torch.cat(nibbles, -1) if order == "halves" else torch.stack(nibbles, -1).flatten(-2)


@cache
def int4_layout() -> tuple[int, str]:
    """(outputs in a block, their order) of a packed four-bit weight. It depends on the CPU (64 with AVX-512, 32 with
    AVX2), so it is found by packing codes that are known."""
    codes = torch.randint(16, (64, 32), dtype=torch.int32, generator=torch.Generator().manual_seed(0))
    try:
        packed = torch._convert_weight_to_int4pack_for_cpu(codes, 1)
    except (AttributeError, NotImplementedError, RuntimeError) as error:
        raise CourseError(f"This build of torch packs no four-bit weights ({error}): take eight bits.") from None
    for block, order in ((64, "halves"), (32, "halves"), (32, "pairs"), (16, "pairs")):
        blocks = unpacked_int4(packed, block, order).transpose(1, 2).reshape(64, 32)
        if torch.equal(blocks.int(), codes):
            return block, order
    raise CourseError("This build of torch packs four-bit weights in an order that isn't known here: take eight bits.")


class DynamicInt8(Stored):
    """Eight-bit weights times eight-bit inputs (W8A8): each token is rounded to a scale of its own, and the CPU
    multiplies integers, four products an instruction and lane where it has VNNI. By oneDNN, through PyTorch.

    What it computes is another function than PackedInt8: inputs are rounded, too. Tokens don't depend on each other, as
    they do under one scale for all of a batch (torch.ao's and fbgemm's dynamic linear).
    """

    ZERO = 128  # oneDNN's fast kernels take unsigned inputs; for signed ones it was a hundred times as slow here

    def __init__(self, layer: IntegerLinear):
        super().__init__()
        check_int8(layer)
        self.in_features, self.out_features, self.bias = layer.in_features, layer.out_features, layer.bias
        self.register_buffer("packed", torch.ops.onednn.qlinear_prepack(layer.integer_codes().contiguous(), None))
        self.register_buffer("scales", layer.scales.float().flatten())

    def __deepcopy__(self, memo: dict) -> DynamicInt8:
        memo[id(self.packed)] = self.packed  # oneDNN's tensors can't be copied, and this one never changes
        memo[id(self)] = copied = object.__new__(type(self))
        copied.__dict__ = copy.deepcopy(self.__dict__, memo)
        return copied

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 2:
            return self(x.reshape(-1, self.in_features)).reshape(*x.shape[:-1], self.out_features)
        codes, token_scales = token_codes(x)
        codes = codes.add_(self.ZERO).to(torch.uint8)
        like = 1.0, 0, torch.float32, "none", [], ""  # no scale and zero of the output, its dtype, nothing after it
        y = torch.ops.onednn.qlinear_pointwise.default(
            codes, 1.0, self.ZERO, self.packed, self.scales, None, None, *like
        )
        y = (y * token_scales).to(x.dtype)
        return y if self.bias is None else y + self.bias


def token_codes(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Each token's codes, whole numbers from -127 to 127 in float32 (n, in), and scales float32 (n, 1)."""
    largest = torch.linalg.vector_norm(rows, torch.inf, -1, keepdim=True).float()
    scales = largest.clamp(min=1e-30) / 127
    return (rows / scales).round_(), scales


def check_int8(layer: IntegerLinear) -> None:
    """Refuse codes that the eight-bit kernels can't multiply, or would multiply wrongly."""
    num_groups = layer.scales.shape[1]
    if layer.bits != 8 or not layer.symmetric or num_groups > 1 or layer.in_features % 16:
        raise CourseError(
            "The eight-bit kernels take eight bits, symmetric, a scale a channel and inputs that are a multiple of 16, "
            f"not {layer.bits} bits {'' if layer.symmetric else 'with zero points '}and {layer.in_features} inputs in "
            f'groups of {layer.in_features // num_groups}: quantize with bits=8, group="channel".'
        )


def rounded_for_kernels(linear: nn.Linear, bits: int, group: Group, symmetric: bool = True) -> IntegerLinear:
    """The layer rounded to nearest, its codes made for scales in bfloat16: what the kernels then multiply by is exactly
    what the codes stand for, where the grid is symmetric."""
    weight = linear.weight.detach()
    grid = weight_grid(weight, bits, group, symmetric).with_scale_in(torch.bfloat16)
    return IntegerLinear(grid.encode(grouped(weight, group)).reshape(weight.shape), grid, linear.bias)


def beside(layers: Sequence[IntegerLinear]) -> IntegerLinear:
    """Layers with the same input as one, its outputs theirs one after the other: rows keep their codes and scales.

    CourseError where they have unlike grids, or only some of them a bias.
    """
    kinds = {(each.bits, each.symmetric, each.scales.shape[1], each.scales.dtype, each.bias is None) for each in layers}
    if len(kinds) > 1:
        raise CourseError("Layers are joined that have the same bits and groups: quantize all with the same settings.")
    first = layers[0]
    dims = (..., None) if first.scales.dtype == torch.bfloat16 else ...  # as IntegerLinear takes scales of groups
    scale = torch.cat([each.scales for each in layers]).float()[dims]
    zero = 0 if first.symmetric else torch.cat([each.zero_points for each in layers]).float()[dims]
    bias = None if first.bias is None else nn.Parameter(torch.cat([each.bias.detach() for each in layers]), False)
    grid = Grid(scale, 1 / scale, first.bits, first.symmetric, zero)
    return IntegerLinear(torch.cat([each.integer_codes() for each in layers]), grid, bias)


def packed(layer: IntegerLinear) -> Packed:
    """The layer for the kernel of its bits."""
    return PackedInt4(layer) if layer.bits == 4 else PackedInt8(layer)


def pack(model: nn.Module, make: Callable[[IntegerLinear], nn.Module] = packed) -> nn.Module:
    """Put `make(layer)` in the place of each IntegerLinear of the model; returns the model. The model should be in
    bfloat16: other dtypes are widened at each call."""
    layers = {n: m for n, m in model.named_modules(remove_duplicate=False) if isinstance(m, IntegerLinear)}
    if not layers:
        raise CourseError("The model has no integer layers to pack: quantize it first, with integer.install say.")
    made = {layer: make(layer) for layer in dict.fromkeys(layers.values())}
    for name, layer in layers.items():
        model.set_submodule(name, made[layer])
    return model
