"""A pre-trained model of transformers before it is loaded."""

from moe_toy.evaluation.huggingface import HuggingFaceTarget
from moe_toy.evaluation.settings import Options


def test_the_code_in_a_folder_is_part_of_the_model(tmp_path):
    """With target.trust_remote_code it routes; changed, its results were those of before."""
    (tmp_path / "config.json").write_text('{"model_type": "olmoe"}')

    def identity() -> dict:
        target = HuggingFaceTarget(path=tmp_path, batch_size=1, trust_remote_code=True, options=Options())
        return target.identity()["files"]

    (tmp_path / "modeling.py").write_text("top_k = 2")
    before = identity()
    (tmp_path / "README.md").write_text("which nothing reads")
    assert identity() == before
    (tmp_path / "modeling.py").write_text("top_k = 4")
    assert identity() != before
