"""What pyproject.toml cannot say yet: the compiled core. Everything else stands there."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "wssup.server._wire",
            sources=[
                f"wssup/server/{name}.c"
                for name in (
                    "_wire",
                    "_wire_receive",
                    "_wire_send",
                    "_wire_usual",
                    "_wire_waits",
                )
            ],
            depends=["wssup/server/_wire.h"],
            extra_compile_args=["-std=c99", "-O2", "-Wall", "-Wextra", "-fvisibility=hidden"],
            # Without a compiler, or without Python's headers, wssup runs in pure Python.
            optional=True,
        )
    ]
)
