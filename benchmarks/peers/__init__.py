"""What the engine is compared with, a file per server, run in an environment of their own."""
