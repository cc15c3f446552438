"""Time, memory, quality and the machine, measured; the equation that predicts them. Knows no technique."""
