import time, torch
t=time.time()
from helpers import models
from helpers.kernels.packed_step import packed_step
from helpers.decoding.forward import Forward
m,tok=models.load("base","bfloat16"); print("loaded", round(time.time()-t), flush=True)
for o in (dict(bits=8,dynamic=True), dict(bits=8), dict(bits=4)):
    s=packed_step(m,**o,turns=0)
    t=time.time()
    try: f=Forward(s); print(o, f.support, round(time.time()-t,1), flush=True)
    except Exception as e: print(o, "REFUSED", e, flush=True)
