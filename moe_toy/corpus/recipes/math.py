"""math: generated school mathematics with worked steps, eight problems to a document."""

from collections.abc import Iterator
from random import Random

from moe_toy.corpus.archives import Archives
from moe_toy.corpus.recipes.problems import KINDS, Problem
from moe_toy.corpus.recipes.recipe import Document, Recipe

SEED = 20250516
PROBLEMS_PER_DOCUMENT = 8
DRAWS = 8 * 1600


def documents(_archives: Archives) -> Iterator[Document]:
    random = Random(SEED)
    asked: set[str] = set()
    batch: list[Problem] = []
    for draw in range(DRAWS):
        problem = random.choice(KINDS)(random)
        if problem.question in asked:
            continue
        asked.add(problem.question)
        batch.append(problem)
        if len(batch) == PROBLEMS_PER_DOCUMENT:
            yield Document(f"math-{draw}", "\n\n".join(map(str, batch)), None)
            batch = []


RECIPE = Recipe(
    name="math",
    stands_for="OpenMath",
    content="generated problems with worked steps",
    packages=(),
    documents=documents,
    drop_near_duplicates=False,  # problems of one kind are alike by design
)
