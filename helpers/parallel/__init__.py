"""One model on several devices: processes, tensor parallelism, FSDP, collectives and what they cost (notebook 06)."""
