"JupyterLab as `make lab` starts it, on top of your own configuration: JUPYTER_CONFIG_PATH leads here. What it keeps lies in the environment, not in your home."
import sys
from pathlib import Path

WIDGET = "application/vnd.jupyter.widget-view+json"


def clean(model, **_):
    "Before a notebook is saved, what nbdev-clean does: opening and saving leaves the file as it was, byte for byte"
    if model["type"] != "notebook" or model["content"]["nbformat"] != 4: return
    from nbdev.clean import clean_nb
    from nbdev.config import get_config
    nb, config = model["content"], get_config()
    clean_nb(nb, allowed_cell_metadata_keys=[*config.allowed_cell_metadata_keys, "trusted"], clean_ids=config.clean_ids, allowed_out_metadata_keys=config.allowed_out_metadata_keys)   # the server asks for `trusted`, and never writes it
    for cell in nb["cells"]:
        if "outputs" in cell: cell["outputs"] = [o for o in cell["outputs"] if WIDGET not in o.get("data", {})]   # a bar is of no use without its kernel


c = get_config()  # noqa: F821
c.ContentsManager.pre_save_hook = clean
kept = Path(sys.prefix)/"share"/"jupyter"
c.NotebookNotary.db_file, c.NotebookNotary.secret_file = str(kept/"nbsignatures.db"), str(kept/"notebook_secret")   # which notebooks are trusted
c.LabApp.workspaces_dir = str(kept/"lab"/"workspaces")      # which tabs are open
c.LabApp.news_url = None                                    # nothing is asked of the network
c.LabApp.check_for_updates_class = "jupyterlab.handlers.announcements.NeverCheckForUpdate"
