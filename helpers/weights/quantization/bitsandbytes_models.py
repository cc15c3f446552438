"""LLM.int8 and NF4 as people use them: `BitsAndBytesConfig`, and transformers quantizes while it loads (notebook 02).

Dettmers et al., "LLM.int8()", 2022; Dettmers et al., "QLoRA", 2023. What to know of bitsandbytes 0.50:

* LLM.int8 rounds inputs from float16 to eight bits, so what is above 65,504 overflows, whatever the model's dtype.
* Its outlier columns are found in all rows of a call together: a token's numbers depend on who shares its batch.
* In training mode a CPU widens the weights and rounds no inputs, which is another function: keep to model.eval().
* On a CPU with AVX-512 and bfloat16, NF4 layers are packed anew at the first call in eval mode: they then compute in
  bfloat16, whatever compute dtype was asked for, and can't be read or merged any more (nf4.py).
* A CPU has no packed eight-bit kernel: weights are turned anew at each call. It saves memory, and costs time.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from helpers import models
from helpers.errors import CourseError
from helpers.files import build_root

KINDS = ("llm_int8", "nf4")
THRESHOLD = 6.0  # the paper's: columns with an input at least this large stay in 16 bits


def load_quantized(
    name: str | Path, kind: str, *, compute: str = "bfloat16", device: str = "cpu", threshold: float = THRESHOLD
):
    """(model, tokenizer) of a model of the course, a folder or the Hub, its linear layers but the output's in `kind`.

    An adapter is merged first, into a folder under build/artifacts. `compute` is the dtype of everything else, and that
    in which NF4 weights are multiplied; `threshold` is LLM.int8's (0: no outliers are kept).

    Raises:
        CourseError: no such kind; the model can't be loaded.
    """
    from transformers import BitsAndBytesConfig, GenerationConfig

    if kind not in KINDS:
        raise CourseError(f"bitsandbytes has no {kind!r} here; there are {', '.join(KINDS)}.")
    dtype, place = models.dtype_of(compute), merged_folder(name)
    eight = dict(load_in_8bit=True, llm_int8_threshold=threshold)
    four = dict(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    config = BitsAndBytesConfig(**(four if kind == "nf4" else eight))
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)  # a line at every call otherwise
    model = models.from_checkpoint(place, quantization_config=config, dtype=dtype, device_map={"": device}).eval()
    tokenizer = models.tokenizer_of(place)
    eos = model.generation_config.eos_token_id
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id if eos is None else eos, pad_token_id=tokenizer.pad_token_id
    )
    return model, tokenizer


def merged_folder(name: str | Path) -> Path | str:
    """Where a whole model is: its own folder or Hub id; of an adapter a folder with base and adapter merged, written
    once in bfloat16."""
    if len(models.parts_of(name)) == 1:
        return models.folder_of(name)
    folder = build_root() / "artifacts" / f"merged-{models.hash_of(name)}"
    if not folder.exists():
        draft = folder.with_name(f".{folder.name}.unfinished")
        shutil.rmtree(draft, ignore_errors=True)
        for part in models.load(name, "bfloat16"):
            part.save_pretrained(draft)
        draft.rename(folder)
    return folder
