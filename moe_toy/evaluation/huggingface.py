"""Where a pre-trained model of transformers comes from. docs/families.md lists the families, and how each is read."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import PositiveInt

from moe_toy.data.tokenizer import Tokenizer
from moe_toy.errors import UserError
from moe_toy.evaluation.evaluation import write_report
from moe_toy.evaluation.offloading import Offloading, store_bytes
from moe_toy.evaluation.pretrained_model import NUM_EXPERTS_NAMES, PretrainedModel, first_number
from moe_toy.evaluation.reading import Reading
from moe_toy.evaluation.router_hooks import Family, family_of, named_by_user
from moe_toy.evaluation.settings import Options
from moe_toy.evaluation.target import Limits, LoadedModel, ModelTarget, check_device
from moe_toy.export.from_huggingface import load_config, load_model
from moe_toy.files.digest import file_digest
from moe_toy.results import Results

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from moe_toy.model.config import ModelConfig

READ = (".json", ".safetensors", ".bin", ".py")
"""Endings of the files in a folder that decide what a model computes: weights, config, and its own code."""
TOP_K_NAMES = ("num_experts_per_tok", "num_experts_per_token", "moe_top_k", "moe_topk", "num_selects", "topk")
MASK_FILLING = ("switch_transformers",)
NUM_SENTINELS = 100
SPREAD = ("auto", "balanced", "balanced_low_0", "sequential")
"""Ways of accelerate to put a model on several devices."""


class HuggingFaceTarget(ModelTarget):
    """`path` is a hub name or a local folder; `part` chooses a side of an encoder-decoder model.

    `router_modules`, a regular expression, and `router_output` name the routers of a family that is not known;
    `num_experts` and `top_k` say what its config does not. With `offload`, a folder that `moe_toy.export` can read as a
    model of ours is decoded as one.
    """

    kind = "huggingface"

    def __init__(
        self,
        *,
        path: str | Path | None,
        revision: str | None = None,
        dtype: str = "auto",
        device_map: str | None = None,
        batch_size: PositiveInt,
        part: Literal["encoder", "decoder"] | None = None,
        trust_remote_code: bool = False,
        router_modules: str | None = None,
        router_output: Literal["logits", "indices"] | None = None,
        num_experts: PositiveInt | None = None,
        top_k: PositiveInt | None = None,
        options: Options,
    ) -> None:
        if not path:
            raise UserError("target.path is not set; give a hub name or the folder of a model")
        if (router_modules is None) != (router_output is None):
            raise UserError("target.router_modules and target.router_output go together; give both or none")
        if router_output not in (None, "logits", "indices"):
            raise UserError(f"target.router_output={router_output} is not known; give logits or indices")
        if part not in (None, "encoder", "decoder"):
            raise UserError(f"target.part={part} is not known; give encoder or decoder")
        if dtype != "auto" and not isinstance(getattr(torch, dtype, None), torch.dtype):
            raise UserError(f"target.dtype={dtype} is no type of torch; give auto, float32, bfloat16 or float16")
        self.source = str(path)
        self.name = Path(path).name
        self.dtype = dtype
        self.device_map = device_map
        self.batch_size = batch_size
        self.part = part
        self.router_modules = router_modules
        self.router_output = router_output
        self.num_experts = num_experts
        self.top_k = top_k
        self._hub = {"revision": revision, "trust_remote_code": trust_remote_code}
        self.reading = Reading(options)
        self.offloading = Offloading(options.offload) if options.offload else None

    def check(self) -> None:
        if self.device_map is not None and self.device_map not in SPREAD:
            check_device("target.device_map", self.device_map)
        if self.config.is_encoder_decoder and self.part is None:
            raise UserError(f"{self.source} has two sides; give target.part=encoder or target.part=decoder")
        if not self.config.is_encoder_decoder and self.part is not None:
            raise UserError(f"{self.source} has no encoder and decoder; leave target.part={self.part} out")
        self.family()
        self.reading.check(self)
        if self.offloading is not None:
            self.offloading.check(self._our_config(), "cpu", self.reading.samples(self))

    def prepare(self, out_dir: Path) -> None:
        self.reading.prepare(self, out_dir)
        if self.offloading is not None:
            self.offloading.prepare(store_bytes(self._our_config(), self.offloading.settings), out_dir)

    def run(self, out_dir: Path) -> Results:
        results = self.reading.run(self, out_dir)
        if self.offloading is None:
            return results
        samples = self.reading.samples(self)
        return self.offloading.decode(results, lambda: load_model(Path(self.source)), samples, out_dir)

    def write_report(self, results: Results, out_dir: Path) -> Path:
        report = write_report(results, out_dir)
        if self.offloading is not None:
            self.offloading.remove_parts(out_dir)
        return report

    def identity(self) -> dict[str, Any]:
        folder = Path(self.source)
        files = sorted(folder.iterdir()) if folder.is_dir() else []
        return {
            "files": {file.name: file_digest(file) for file in files if file.suffix in READ},
            "commit": getattr(self.config, "_commit_hash", None),
            "dtype": self.dtype,
            "part": self.part,
            "routers": [self.router_modules, self.router_output, self.num_experts, self.top_k],
            **({"offload": self.offloading.settings.as_json()} if self.offloading else {}),
        }

    def limits(self) -> Limits:
        text = self.config.get_text_config()
        return Limits(text.vocab_size, getattr(text, "max_position_embeddings", None))

    def tokenizer(self) -> Path:
        if Path(self.source).is_dir():
            path = Path(self.source) / "tokenizer.json"
            if not path.is_file():
                raise UserError(f"{self.source} has no tokenizer.json; put it there or give data.tokenizer=FILE.json")
            return path
        from huggingface_hub import hf_hub_download

        try:
            return Path(hf_hub_download(self.source, "tokenizer.json", revision=self._hub["revision"]))
        except Exception as error:  # transport raises many kinds
            raise UserError(
                f"{self.source}: cannot fetch its tokenizer.json ({_first_line(error)}); give data.tokenizer=FILE.json"
            ) from error

    def load(self) -> LoadedModel:
        import transformers

        both_sides = self.config.is_encoder_decoder
        auto = transformers.AutoModelForSeq2SeqLM if both_sides else transformers.AutoModelForCausalLM
        try:
            model = auto.from_pretrained(self.source, dtype=self.dtype, device_map=self.device_map, **self._hub)
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            raise UserError(f"target.path={self.source}: cannot load the model ({_first_line(error)})") from error
        if self.device_map is None and torch.cuda.is_available():
            model = model.to("cuda")
        return PretrainedModel(
            model,
            self.family(),
            part=self.part,
            num_experts=self.num_experts,
            sentinel_ids=self._sentinel_ids(),
        )

    def family(self) -> Family:
        if self.router_modules is None:
            return family_of(self.config.model_type)
        top_k = self.top_k or first_number(self.config, TOP_K_NAMES)
        if top_k is None and self.router_output == "logits":
            raise UserError(f"the config of {self.source} does not say how many experts a token has; give target.top_k")
        num_experts = self.num_experts or first_number(self.config, NUM_EXPERTS_NAMES)
        return named_by_user(self.router_modules, self.router_output, top_k, num_experts)

    def _our_config(self) -> ModelConfig:
        try:
            return load_config(Path(self.source))[0]
        except UserError as error:
            raise UserError(f"offload decodes what moe_toy.export can read; {error}; or offload=none") from error

    def _sentinel_ids(self) -> list[int] | None:
        if self.config.model_type not in MASK_FILLING:
            return None
        backend = Tokenizer.load(self.tokenizer()).backend
        ids = [backend.token_to_id(f"<extra_id_{i}>") for i in range(NUM_SENTINELS)]
        if None in ids:
            raise UserError(
                f"the tokenizer of {self.source} has no mask tokens <extra_id_0>, <extra_id_1>, ...; replace it"
            )
        return ids

    @cached_property
    def config(self) -> PretrainedConfig:
        try:
            from transformers import AutoConfig

            return AutoConfig.from_pretrained(self.source, **self._hub)
        except (OSError, ValueError, ImportError) as error:
            raise UserError(
                f"target.path={self.source}: no such model ({_first_line(error)}); give a hub name or the folder of a "
                "model; its own code only runs with target.trust_remote_code=true"
            ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
