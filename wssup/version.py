"""The version of wssup, read by the build and shown by ``wssup --version``."""

__version__ = "0.1.0.dev0"
