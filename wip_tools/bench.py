import sys, torch, time
from functools import partial
from helpers.measuring.timing import take_turns
from helpers.weights.quantization.integer import IntegerLinear
from helpers.weights.quantization.packed import *
from helpers.kernels.packed_linear import PackedLinear, NUM_TOKENS
torch.manual_seed(0)
shapes=[(960,576),(576,576),(3072,576),(576,1536)]
L=int(sys.argv[1]) if len(sys.argv)>1 else 15
dense=[nn.Linear(i,o,bias=False,dtype=torch.bfloat16) for _ in range(L) for o,i in shapes]
arms={}
arms["bf16"]=[PackedLinear(d,["packed"]*len(NUM_TOKENS)) for d in dense]
i8=[rounded_for_kernels(d,8,"channel") for d in dense]
i4=[rounded_for_kernels(d,4,64) for d in dense]
arms["int8"]=[packed(l) for l in i8]
arms["int4"]=[packed(l) for l in i4]
arms["w8a8"]=[DynamicInt8(l) for l in i8]
class S8(DynamicInt8):
    def forward(self,x):
        c,s=token_codes(x); c=c.to(torch.int8)
        y=torch.ops.onednn.qlinear_pointwise.default(c,1.0,0,self.packed,self.scales,None,None,1.0,0,torch.float32,"none",[],"")
        return (y*s).to(x.dtype)
arms["w8a8 s8"]=[S8(l) for l in i8]
class FB(nn.Module):
    def __init__(self,l):
        super().__init__()
        q=torch._make_per_channel_quantized_tensor(l.integer_codes(), l.scales.float().flatten(), torch.zeros(l.out_features,dtype=torch.long),0)
        self.p=torch.ops.quantized.linear_prepack(q,None); self.in_features=l.in_features
    def forward(self,x): return torch.ops.quantized.linear_dynamic(x.float(),self.p,False).to(torch.bfloat16)
arms["fbgemm"]=[FB(l) for l in i8]
class W(nn.Module):
    def __init__(self,l): super().__init__(); self.l=l; self.in_features=l.in_features
    def forward(self,x): return self.l.widened_product(x)
arms["int8 widened"]=[W(l) for l in arms["int8"]]
arms["int4 widened"]=[W(l) for l in arms["int4"]]
def run(layers,xs):
    for l in layers: l(xs[l.in_features])
with torch.inference_mode():
    for n in (1,2,4,8,16,32,64,256):
        xs={i:torch.randn(n,i).bfloat16() for i in (576,1536)}
        t=take_turns({k:partial(run,v,xs) for k,v in arms.items()}, 9 if n<64 else 4, warmup=1)
        print(n, {k: round(min(v)*1e6/len(dense),1) for k,v in t.items()}, flush=True)
