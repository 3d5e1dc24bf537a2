"""Compiles the kernels in ext/, and nothing else; pyproject.toml says the rest."""

from Cython.Build import cythonize
from setuptools import Extension, setup

KERNELS = (
    "batch",
    "draw",
    "gate",
    "holders",
    "ids",
    "limit",
    "meter",
    "records",
    "room",
    "straight",
    "throttle",
    "tickets",
    "tokens",
)

setup(
    ext_modules=cythonize(
        [
            Extension(f"ext.{name}", [f"ext/{name}.pyx"], extra_compile_args=["-O3"])
            for name in KERNELS
        ],
        compiler_directives={"language_level": 3},
    )
)
