"""The worker: accepts connections, serves them, and lets go of them."""
