"""Store in the notebooks of nbs/paper the outputs of runs with the parameters that they show.

Figures and tables show profiles nano and smollm2, stages show profile smoke. A notebook of a
profile that did not run here keeps the outputs that it has, and a line says so.
"""

import json

import nbformat

from interlace.core.files import project_root
from interlace.core.profiles import load_profile
from interlace.reproduction.pipeline import stages

WIDGET = "application/vnd.jupyter.widget-view+json"
RUNS = {profile: stages(load_profile(profile)) for profile in ("nano", "smollm2", "smoke")}
PAPER = project_root() / "nbs" / "paper"


def shown(notebook):
    "The values in a notebook's parameters cell"
    values = {}
    exec(notebook.cells[1].source, values)
    return values


def is_shown(stage, values):
    "Whether a stage has these parameters, in any order"
    return all(
        str(sorted(v) if isinstance(v, list) else v)
        == str(sorted(values[k]) if isinstance(v, list) else values[k])
        for k, v in stage.parameters.items()
        if k in ("profile", "variant", "out", "records", "model")
    )


def executed(path, notebook):
    "The executed notebook of the first stage with the parameters that a notebook shows"
    name, values = f"{path.parent.name}/{path.stem}", shown(notebook)
    for profile, matrix in RUNS.items():
        for stage in matrix:
            if stage.notebook == name and is_shown(stage, values):
                return project_root() / "runs" / profile / "notebooks" / f"{stage.name}.ipynb"
    return project_root() / "runs" / "bench" / path.name  # run by a command of its own


def copy_outputs(notebook, run):
    "Take over the outputs of all cells, without what went to standard error"
    of = {c["id"]: c.outputs for c in run.cells if c.cell_type == "code"}
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell["id"] in of:
            shown = [o for o in of[cell["id"]] if o.get("name") != "stderr"]
            # a progress bar is of no use without its kernel
            cell.outputs = [o for o in shown if WIDGET not in o.get("data", {})]
            for output in cell.outputs:
                if "execution_count" in output:
                    output["execution_count"] = None


def main():
    for path in sorted(PAPER.glob("*/*.ipynb")):
        notebook = nbformat.read(path, 4)
        source = executed(path, notebook)
        if not source.is_file():
            print(f"{path.name}: {source.relative_to(project_root())} is not there")
            continue
        copy_outputs(notebook, nbformat.read(source, 4))
        # as JupyterLab, configured as `make lab` does, would save it
        content = json.loads(nbformat.writes(notebook))
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
