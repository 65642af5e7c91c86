"""Configuration of JupyterLab for `make lab`, on top of your own.

JUPYTER_CONFIG_PATH points here. JupyterLab keeps its state in the environment, not in your home.
"""

import sys
from pathlib import Path

from jupyter_core.paths import jupyter_config_dir

CONFIGURED = Path(__file__).parent
WIDGET = "application/vnd.jupyter.widget-view+json"


def clean(model, **_):
    """Clean a notebook as nbdev-clean does, before it is saved

    Opening and saving a notebook then leaves the file as it was, byte for byte.
    """
    if model["type"] != "notebook" or model["content"]["nbformat"] != 4:
        return
    from nbdev.clean import clean_nb
    from nbdev.config import get_config

    nb, config = model["content"], get_config()
    # the server requires `trusted`, and never writes it to the file
    clean_nb(
        nb,
        allowed_cell_metadata_keys=[*config.allowed_cell_metadata_keys, "trusted"],
        clean_ids=config.clean_ids,
        allowed_out_metadata_keys=config.allowed_out_metadata_keys,
    )
    # a progress bar is of no use without its kernel
    for cell in nb["cells"]:
        if "outputs" in cell:
            cell["outputs"] = [o for o in cell["outputs"] if WIDGET not in o.get("data", {})]


c = get_config()  # noqa: F821
c.ContentsManager.pre_save_hook = clean
kept = Path(sys.prefix) / "share" / "jupyter"
# which notebooks are trusted
c.NotebookNotary.db_file, c.NotebookNotary.secret_file = (
    str(kept / "nbsignatures.db"),
    str(kept / "notebook_secret"),
)
c.LabApp.workspaces_dir = str(kept / "lab" / "workspaces")  # which tabs are open
# how outputs are laid out: your own custom.css, or else the one beside this file
c.LabApp.custom_css = True
c.ServerApp.tornado_settings = dict(
    static_custom_path=[str(Path(d) / "custom") for d in (jupyter_config_dir(), CONFIGURED)]
)
c.LabApp.news_url = None  # no network requests
c.LabApp.check_for_updates_class = "jupyterlab.handlers.announcements.NeverCheckForUpdate"
