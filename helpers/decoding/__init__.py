"""Decoding: one request's state, one forward, one KV cache, one loop; whoever guesses plugs into it."""
