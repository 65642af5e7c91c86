"""Notebooks of this environment draw at double resolution, like their stored outputs.

`make setup` copies this file to .venv/etc/ipython.
"""

c = get_config()  # noqa: F821
c.InlineBackend.figure_formats = {"retina"}
