"""`python -m moe_toy.workspace entity=... project=...`: save a view of a W&B project that shows what our runs log."""

import sys

from moe_toy.export.arguments import run


def main(entity: object, project: object) -> None:
    from moe_toy.workspace.layout import save_workspace

    sys.stdout.write(f"{save_workspace(str(entity), str(project))}\n")


if __name__ == "__main__":
    keys = {"entity": "your user or team at W&B", "project": "the project of the runs, moe_toy by default"}
    run(main, "moe_toy.workspace", "Save a view of a W&B project: consistency, specialization, load and caches.", keys)
