"""Compiles the kernels in ext/, and nothing else; pyproject.toml says the rest."""

from Cython.Build import cythonize
from setuptools import Extension, setup

setup(
    ext_modules=cythonize(
        [Extension("ext.records", ["ext/records.pyx"], extra_compile_args=["-O3"])],
        compiler_directives={"language_level": 3},
    )
)
