"""The sources of the site, in the order in which they depend on each other.

- `chapters`: the notebooks in reading order, and their equations
- `names`: the public names of the library, by each form that prose uses
- `artifacts`: the stored figures and tables
- `links`: references in prose become links
- `notebooks`: notebooks as pages, with an API entry after each cell that defines a name
- `pages`: all other pages, from Jinja templates
- `api`: the Sphinx extension that shows docstrings and comments of arguments
"""
