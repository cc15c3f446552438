"""A few trained numbers beside the frozen ones."""
