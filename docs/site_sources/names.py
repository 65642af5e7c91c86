"""The public names of the library, found without importing its modules."""

import ast
from importlib import import_module

from .chapters import ROOT

# module -> full names of everything that it defines, methods included; written by nbdev
SYMBOLS = import_module("interlace._modidx").d["syms"]
MODULES = frozenset(SYMBOLS)


def exported():
    "Return the full name of each public name of the library, by each form that prose uses"
    names = {}
    for module in SYMBOLS:
        names[module] = names[f"{module.replace('.', '/')}.py"] = module
        for full in sorted(full_names(module)):
            names |= dict.fromkeys(spellings(full), full)
    return names


def full_names(module):
    "Return the full names of a module's public names and of their public methods"
    public = public_names(module)
    methods = {
        full
        for full in SYMBOLS[module]
        if split(full)[1][0] in public and not any(p.startswith("_") for p in split(full)[1])
    }
    return {f"{module}.{name}" for name in public} | methods


def public_names(module):
    "Return a module's `__all__`"
    path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    raise ValueError(f"{path}: no __all__")


def spellings(full):
    "Return the forms of a name in prose, for example `Plan`, `il.Plan` and `method.selection.Plan`"
    module, parts = split(full)
    inside = ".".join(parts)
    return full, inside, f"il.{inside}", f"{module.removeprefix('interlace.')}.{inside}"


def split(full):
    "Split a full name into its module and its parts inside the module"
    parts = full.split(".")
    depth = next(k for k in (3, 2) if ".".join(parts[:k]) in MODULES)
    return ".".join(parts[:depth]), parts[depth:]
