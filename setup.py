"""Where the package lies; everything else is in pyproject.toml."""

from setuptools import find_packages, setup

setup(package_dir={"": "lib"}, packages=find_packages("lib"))
