"""Number formats: what they can hold, and what half precision does to a model."""
