"""Many users at once: blocks of the KV cache, who reads what in a step, and the loop (notebook 05)."""
