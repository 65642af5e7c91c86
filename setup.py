"""Puts a copy of settings.ini into a built package; everything else is in pyproject.toml.

The file at the top is the only source. Outside a clone, `interlace profiles` and `interlace
plan-run` read the copy.
"""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithSettings(build_py):
    "Build the package, and add the profiles to it"

    def run(self):
        super().run()
        if not self.editable_mode:  # that finds the file in the clone
            self.copy_file("settings.ini", str(Path(self.build_lib, "interlace", "settings.ini")))


setup(cmdclass={"build_py": BuildWithSettings})
