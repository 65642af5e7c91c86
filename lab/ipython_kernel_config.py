"Notebooks of this environment draw with twice the pixels, as their stored outputs are: `make setup` copies this to .venv/etc/ipython."
c = get_config()  # noqa: F821
c.InlineBackend.figure_formats = {"retina"}
