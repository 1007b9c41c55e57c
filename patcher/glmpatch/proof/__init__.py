"""The proof: vLLM's numbers against Transformers' on the same weights."""
