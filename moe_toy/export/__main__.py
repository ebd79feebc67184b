"""`python -m moe_toy.export checkpoint=... out=...`: one of our checkpoints as a Hugging Face folder."""

from pathlib import Path

from moe_toy.export.arguments import run


def main(checkpoint: Path, out: Path) -> None:
    from moe_toy.export.to_huggingface import export

    export(checkpoint, out)


if __name__ == "__main__":
    run(
        main,
        "moe_toy.export",
        "Write a checkpoint as a Hugging Face folder that transformers loads with its own classes.",
        {
            "checkpoint": "a checkpoint, or the run directory that holds it",
            "out": "the folder to write; it must not exist",
        },
    )
