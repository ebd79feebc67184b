"""Which charts stand where: a row of headline curves, then consistency, specialization, load, caches and losses."""

from typing import TYPE_CHECKING

from moe_toy.errors import UserError
from moe_toy.runs.curve_keys import CACHE, CONSISTENCY, CORRELATION, LOAD, ROUTER, SPECIALIZATION

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

STEP = "trainer/global_step"
NAME = "moe_toy"
KINDS = ("domain", "input", "predicted", "target")
LAYERS, DOMAINS = r"/layer_\d+$", "/domain/.+$"
CHARTS: dict[str, dict[str, list[str] | str]] = {
    "Headlines": {
        "validation loss": ["val/loss"],
        "SRP over 16 tokens": [f"{CONSISTENCY}/srp@16"],
        "hit rate of LRU, twice the active experts": [f"{CACHE}/lru/ratio_2"],
        "imbalance over everything": [f"{LOAD}/cv"],
        "domain specialization": [f"{SPECIALIZATION}/domain"],
        "effective experts": [f"{LOAD}/effective_experts"],
    },
    "Consistency": {
        "SRP by segment length": [f"{CONSISTENCY}/srp@{m}" for m in (4, 16, 64, 256)],
        "SRP@16 above shuffled routing": [f"{CONSISTENCY}/above_{null}@16" for null in ("sequence", "corpus")],
        "SRP over 16 tokens, by layer": f"^{CONSISTENCY}/srp@16{LAYERS}",
        "SRP over 16 tokens, by domain": f"^{CONSISTENCY}/srp@16{DOMAINS}",
    },
    "Specialization": {
        "mean over experts": [f"{SPECIALIZATION}/{kind}" for kind in KINDS],
        "in domains, by layer": f"^{SPECIALIZATION}/domain{LAYERS}",
        "in target tokens, by layer": f"^{SPECIALIZATION}/target{LAYERS}",
        "share of experts that prefer a domain": f"^{SPECIALIZATION}/experts_of/.+$",
        "with SRP, over experts": [
            f"{CORRELATION}/srp@16/{kind}" for kind in ("domain", "input", "predicted", "target")
        ],
    },
    "Load": {
        "imbalance": [f"{LOAD}/cv", f"{LOAD}/cv@sequence", f"{LOAD}/cv@16"],
        "MaxVio": [f"{LOAD}/max_violation", f"{LOAD}/max_violation@sequence"],
        "effective experts, by layer": f"^{LOAD}/effective_experts{LAYERS}",
        "dead experts": [f"{LOAD}/dead_experts"],
        "largest share of tokens of one expert": [f"{LOAD}/largest_share"],
        "saturation of the router": [f"{ROUTER}/saturation"],
    },
    "Caches": {
        "looking 16 tokens ahead": rf"^{CACHE}/sch@16/ratio_[\d.]+$",
        "LRU and LFU, twice the active experts": [f"{CACHE}/lru/ratio_2", f"{CACHE}/lfu/ratio_2"],
        "LRU of an engine, and first requests": [f"{CACHE}/lru@layer/ratio_2", f"{CACHE}/cold_misses"],
    },
    "Losses": {
        "validation loss by domain": f"^val/loss{DOMAINS}",
        "bits per byte by domain": f"^val/bits_per_byte{DOMAINS}",
        "training loss": ["train/loss"],
    },
}
"""By section and title: the keys of a chart, or what those that it shows match."""


def build_workspace(entity: str, project: str) -> "Workspace":
    """The view, not saved yet; runs are grouped by the sweep they belong to. Needs the package wandb-workspaces."""
    try:
        import wandb_workspaces.reports.v2 as charts
        import wandb_workspaces.workspaces as views
    except ImportError:
        raise UserError(
            "the package wandb-workspaces is not there; install it: pip install 'moe-toy[workspace]'"
        ) from None

    def chart(title: str, keys: list[str] | str) -> charts.LinePlot:
        shown = {"metric_regex": keys} if isinstance(keys, str) else {"y": keys}
        return charts.LinePlot(title=title, x=STEP, **shown)

    sections = [
        views.Section(name=name, is_open=True, panels=[chart(title, keys) for title, keys in shown.items()])
        for name, shown in CHARTS.items()
    ]
    grouping = views.RunsetSettings(groupby=[views.Config("sweep_name")])
    return views.Workspace(entity=entity, project=project, name=NAME, sections=sections, runset_settings=grouping)


def save_workspace(entity: str, project: str) -> str:
    """Save the view in W&B and return its address. Raises `UserError` without an account, access or network."""
    import wandb

    workspace = build_workspace(entity, project)
    if not wandb.login(prompt=False):
        raise UserError("there is no W&B account; log in with `wandb login`, or set WANDB_API_KEY")
    try:
        return workspace.save().url
    except Exception as error:  # transport and service each raise their own kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"cannot save the view in {entity}/{project} ({reason}); check both names, your access and the network"
        ) from error
