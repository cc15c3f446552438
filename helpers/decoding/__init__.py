"""Decoding: one KV cache, one attention function, one loop, and the proposers that speed it up."""
