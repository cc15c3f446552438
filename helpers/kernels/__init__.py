"""The same function, computed faster: linear layers, attention, a whole step."""
