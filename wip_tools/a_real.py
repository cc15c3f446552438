"""Writer A's trial on the real model: times of each method, perplexity of reference answers."""
import copy, sys, time
import torch
from helpers import models
from helpers.measuring.quality import logits_of, perplexity
from helpers.text_to_sql.dataset import load_split
from helpers.weights.quantization import integer, gptq, awq, smoothquant, llm_int8, nf4_codes
from helpers.weights.quantization.calibration import answer_pairs, calibration_prompts
torch.set_num_threads(int(sys.argv[2]) if len(sys.argv) > 2 else 1)
count = int(sys.argv[1]) if len(sys.argv) > 1 else 32
model, tok = models.load("fine-tuned")
prompts = calibration_prompts(tok, count)
pairs = answer_pairs(tok, load_split("validation", limit=8))
print("tokens", sum(map(len, prompts)), "rss", flush=True)
print("fp32", perplexity(logits_of(model), pairs), flush=True)
from torch import nn
ARMS = {
 "rtn8": lambda m: integer.install(m, 8), "int8": lambda m: llm_int8.install(m), "w8a8": smoothquant.w8a8,
 "smooth": lambda m: smoothquant.smoothquant(m, prompts), "nf4": nf4_codes.install,
 "rtn4g64": lambda m: integer.install(m, 4, 64), "awq4g64": lambda m: awq.awq(m, prompts, 4, 64), "gptq4g64": lambda m: gptq.gptq(m, prompts, 4, 64),
 "rtn3": lambda m: integer.install(m, 3), "awq3": lambda m: awq.awq(m, prompts, 3), "gptq3": lambda m: gptq.gptq(m, prompts, 3),
 "rtn2": lambda m: integer.install(m, 2), "awq2": lambda m: awq.awq(m, prompts, 2), "gptq2": lambda m: gptq.gptq(m, prompts, 2),
 "rtn2a": lambda m: integer.install(m, 2, "channel", False), "awq2a": lambda m: awq.awq(m, prompts, 2, "channel", False), "gptq2a": lambda m: gptq.gptq(m, prompts, 2, "channel", False),
 "rtn3a": lambda m: integer.install(m, 3, "channel", False), "awq3a": lambda m: awq.awq(m, prompts, 3, "channel", False), "gptq3a": lambda m: gptq.gptq(m, prompts, 3, "channel", False),
}
for name in (sys.argv[3].split(",") if len(sys.argv) > 3 else ARMS):
    t = time.time()
    m = ARMS[name](copy.deepcopy(model))
    t = time.time() - t
    size = integer.linear_bytes(m) / 1e6
    m = integer.to_dense(m)
    print(f"{name:10} {t:7.1f} s  {size:7.1f} MB  ppl {perplexity(logits_of(m), pairs):.4f}", flush=True)
