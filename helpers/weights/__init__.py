"""What a model's weights are stored as, and what can be left out of them."""
