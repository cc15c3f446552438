"""The support package of the course on fast LLM inference."""
