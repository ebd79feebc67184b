"""qa: explanations of lint rules as questions and answers, and a FAQ."""

import ast
import hashlib
import json
import re
from collections.abc import Iterator

from moe_toy.corpus.archives import Archives
from moe_toy.corpus.recipes.recipe import Document, Recipe, stable_hash
from moe_toy.corpus.recipes.restructured_text import plain_text, plain_title
from moe_toy.errors import UserError

RUFF_RULES_SHA256 = "94c2dfc3eb73232625f2bb66b338223eb77ffdf7bace22c3e8acfda1cd0aad90"
QUESTIONS = (
    "Why does {linter} report {rule} ({code}), and how do I fix it?",
    "What is wrong with code flagged as {rule} ({code})?",
    "My linter says {rule} ({code}). What does it mean?",
    "When should I follow the rule {rule} ({code}) of {linter}?",
)
_RULE_CLASSES = {"wemake-python-styleguide": r"/violations/.*\.py$", "sqlfluff": r"/rules/.*\.py$"}


def documents(archives: Archives) -> Iterator[Document]:
    yield from ruff_rules(archives)
    for package, paths in _RULE_CLASSES.items():
        yield from rule_classes(archives, package, paths)
    yield from django_faq(archives)


def ruff_rules(archives: Archives) -> Iterator[Document]:
    printed = json.loads(archives.run("ruff", "rule", "--all", "--output-format", "json"))
    rules = sorted(
        (rule["linter"] or "Ruff", rule["code"] or "", rule["name"], rule["explanation"] or "") for rule in printed
    )
    # An installed program has no archive whose hash could be checked, so what it prints is.
    if hashlib.sha256(json.dumps(rules).encode()).hexdigest() != RUFF_RULES_SHA256:
        raise UserError("ruff prints other rules than ruff 0.17.6 does; reinstall it or leave out the domain qa")
    for linter, code, name, explanation in rules:
        question = QUESTIONS[stable_hash(code, name) % len(QUESTIONS)]
        question = question.format(linter=linter, code=code, rule=name.replace("-", " "))
        yield _exchange(code + name, question, without_links(explanation), "ruff")


def without_links(markdown: str) -> str:
    """Links as their labels; sections that hold nothing but links or options are dropped."""
    text = re.sub(r"^#+ (References|Options)\n.*?(?=^#|\Z)", "", markdown, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^\[[^\]]+\]: .*\n?", "", text, flags=re.MULTILINE)
    return re.sub(r"\[([^\]]+)\](\([^)]*\)|\[[^\]]*\])", r"\1", text)


def rule_classes(archives: Archives, package: str, paths: str) -> Iterator[Document]:
    """Linters that explain each rule in the docstring of its class."""
    for _, source in archives.files(package, paths):
        for node in ast.walk(ast.parse(source)):
            docstring = ast.get_docstring(node) if isinstance(node, ast.ClassDef) else None
            if docstring and len(docstring) > 200:
                words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", node.name).lower().removesuffix(" violation")
                question = f'What does the check "{words.replace("_", " ")}" ask for?'
                yield _exchange(node.name, question, plain_text(docstring), package)


def django_faq(archives: Archives) -> Iterator[Document]:
    for path, text in archives.files("django", r"/docs/faq/.*\.txt$"):
        for section in re.split(r"\n(?=[^\n]+\n[=-]{4,}\n)", text)[1:]:
            question, _, answer = section.split("\n", 2)
            yield _exchange(path + question, plain_title(question), plain_text(answer).strip(), "django")


def _exchange(group: str, question: str, answer: str, package: str) -> Document:
    return Document(group, f"Q: {question}\n\nA: {answer}", package)


RECIPE = Recipe(
    name="qa",
    stands_for="StackExchange",
    content="lint rules explained, the Django FAQ",
    packages=("ruff", *_RULE_CLASSES, "django"),
    documents=documents,
    drop_repeated_paragraphs=True,
)
