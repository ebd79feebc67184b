"""A model that reads text: what the targets that run a model share."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from moe_toy.data.tokenizer import Tokenizer
from moe_toy.errors import UserError
from moe_toy.evaluation.capture import capture, check_fits
from moe_toy.evaluation.evaluation import Evaluation, Subject
from moe_toy.evaluation.samples import Samples, Text
from moe_toy.evaluation.settings import Options, check_segments_fit
from moe_toy.evaluation.target import ModelTarget
from moe_toy.results import Results


class Reading:
    """The text that a model reads, and the evaluation of how it routes it. Each target that runs a model holds one."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.evaluation = Evaluation(options)
        self._samples: Samples | None = None

    def check(self, model: ModelTarget) -> None:
        """Of the text, before anything is fetched."""
        samples = self.samples(model)
        samples.source.check()
        lengths = self.options.metrics.segment_lengths
        check_segments_fit(lengths, samples.length, f"data.validation_length={samples.length}")

    def prepare(self, model: ModelTarget, out_dir: Path) -> None:
        """Get the text ready, and see that it fits the model and that the folder is free."""
        samples = self.samples(model)
        samples.prepare()
        check_fits(model.limits(), samples)
        self._check_tokenizer(model, samples)
        self.evaluation.prepare(self._subject(model), out_dir)

    def run(self, model: ModelTarget, out_dir: Path) -> Results:
        return self.evaluation.run(self._subject(model), out_dir)

    def samples(self, model: ModelTarget) -> Samples:
        """The blocks that the model reads, in the tokens of its own tokenizer unless the config names another."""
        if self._samples is None:
            data = self.options.data()
            if data.source is None:
                text = data.of(model.run_description())
            else:
                text = Text(data.source, data.root, data.validation_samples, data.validation_length)
            self._samples = Samples(text, self.options.tokenizer or model.tokenizer())
        return self._samples

    def _check_tokenizer(self, model: ModelTarget, samples: Samples) -> None:
        """Refuse another tokenizer than the model's own, where that is known: its ids would mean other text."""
        if self.options.tokenizer is None:
            return
        try:
            own = model.tokenizer()
        except UserError:
            return
        if Tokenizer.load(own).fingerprint != samples.tokenizer.fingerprint:
            raise UserError(
                f"data.tokenizer={self.options.tokenizer} is another tokenizer than {own}, with which the model was "
                "trained: its tokens would mean other text to the model; leave data.tokenizer out"
            )

    def _subject(self, model: ModelTarget) -> Subject:
        samples = self.samples(model)
        return Subject(
            kind=model.kind,
            name=model.name,
            source=model.source,
            identity=model.identity(),
            record=partial(capture, model, samples),
            tokenizer=samples.tokenizer,
            domains=samples.domains,
            data=samples.identity(),
            text={"words": samples.text.words, "fingerprint": samples.source.fingerprint()},
        )
