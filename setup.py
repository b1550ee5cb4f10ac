"""What pyproject.toml cannot say yet: the compiled core. Everything else stands there."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "wssup.server._wire",
            sources=["wssup/server/_wire.c"],
            extra_compile_args=["-std=c99", "-O2", "-Wall", "-Wextra"],
            # Without a compiler, or without Python's headers, wssup runs in pure Python.
            optional=True,
        )
    ]
)
