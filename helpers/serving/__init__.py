"""An HTTP server over the engine, its clients, load tests, and which server to choose (notebook 11)."""
