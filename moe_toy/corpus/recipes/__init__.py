"""One recipe per domain: which texts, out of which package, cleaned how. In the order of the tables."""

from moe_toy.corpus.recipes import (
    arxiv,
    books,
    chat,
    code,
    evaluation_only,
    github,
    math,
    qa,
    science,
    speech,
    web,
    wiki,
)
from moe_toy.corpus.recipes.recipe import Recipe

DOMAINS: tuple[Recipe, ...] = tuple(
    domain.RECIPE for domain in (web, speech, books, wiki, arxiv, qa, github, chat, math, code, science)
)
EXTRA: tuple[Recipe, ...] = evaluation_only.RECIPES
