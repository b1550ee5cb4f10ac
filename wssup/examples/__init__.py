"""Applications to try wssup with."""
