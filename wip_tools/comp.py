import sys,time,torch
sys.path.insert(0,'/tmp/m/measure')
from statistics import median
import torch._inductor.config as ic
ic.freezing=True
from helpers import models
from helpers.kernels.fused_llama import FusedLlama
from helpers.kernels.fastest_step import fastest_step
from helpers.kernels import torch_compile
from torch.nn import functional as F
torch.set_num_threads(2)
torch_compile.prepare()
m,t=models.load('fine-tuned','bfloat16')
f=FusedLlama(m)
L=30; cap=256
class Step(torch.nn.Module):
    def __init__(s,f):
        super().__init__(); s.f=f
        s.lm=torch.nn.Linear(576,49152,bias=False,device='meta'); s.lm.weight=f.lm_head.weight
    def forward(s,ids,cos,sin,keys,values,start:int,mask):
        f=s.f; n=ids.shape[0]
        x=f.embed(ids)
        for i,l in enumerate(f.layers):
            turned=l.heads+l.kv_heads; group=l.heads//l.kv_heads
            qkv=l.qkv(F.rms_norm(x,(576,),l.norms[0][0],l.norms[0][1])).view(1,n,turned+l.kv_heads,64)
            qk=qkv[:,:,:turned]
            qk=torch.addcmul(qk*cos,qk.roll(32,-1),sin).transpose(1,2)
            q=qk[:,:l.heads]
            keys[i].narrow(2,start,n).copy_(qk[:,l.heads:])
            values[i].narrow(2,start,n).copy_(qkv[:,:,turned:].transpose(1,2))
            k=keys[i].narrow(2,0,start+n); v=values[i].narrow(2,0,start+n)
            q=q.reshape(1,l.kv_heads,group*n,64)
            a=F.scaled_dot_product_attention(q,k,v,attn_mask=mask,scale=l.scale)
            a=a.reshape(1,l.heads,n,64).transpose(1,2).reshape(n,-1)
            x=x+l.out(a)
            g,u=l.gate_up(F.rms_norm(x,(576,),l.norms[1][0],l.norms[1][1])).chunk(2,-1)
            x=x+l.down(F.silu(g)*u)
        h=F.rms_norm(x,(576,),f.last_norm[0],f.last_norm[1])
        return s.lm(h),h
step=Step(f).eval()
keys=[torch.zeros(1,3,cap,64,dtype=torch.bfloat16) for _ in range(L)]
values=[torch.zeros(1,3,cap,64,dtype=torch.bfloat16) for _ in range(L)]
def call(fn,n,start):
    pos=torch.arange(start,start+n)
    return fn(torch.full((n,),77),f.cos[pos],f.sin[pos],keys,values,start,None if n==1 else torch.zeros(1,1,3*n,start+n,dtype=torch.bfloat16))
with torch.no_grad():
    ref=call(step,1,128)[0].float()
    c=torch.compile(step,dynamic=True)
    b=time.time(); out=call(c,1,128)[0].float(); print('compile',time.time()-b,(out-ref).abs().max(),ref.abs().max())
    b=time.time(); call(c,1,129); print('second',time.time()-b)
    b=time.time(); call(c,8,128); print('8 tokens',time.time()-b)
    b=time.time(); call(c,7,130); print('7 tokens',time.time()-b)
    fast=fastest_step(m,2)
    from helpers.profiling.step_time import steps_in_turns
    for _ in range(3):
        for n in (1,4,8,16):
            ts=[]
            for i in range(20):
                b=time.perf_counter(); call(c,n,128); ts.append(time.perf_counter()-b)
            print(n,'compiled %.2f ms'%(median(ts)*1e3),end=' ')
        r=steps_in_turns({'':fast},(1,4,8,16),rounds=20)['']
        print({n:round(median(v)*1e3,2) for n,v in r.items()})
