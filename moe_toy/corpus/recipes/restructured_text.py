"""reStructuredText to plain text."""

import re

_MATH_BLOCK = re.compile(r"^( *)\.\. math::[ \t]*(.*\n(?:(?:\1[ \t]+.*)?\n)*)", re.MULTILINE)
_ROLE = re.compile(r":[\w:+-]+:`([^`]*)`", re.DOTALL)
_TARGET = re.compile(r"^ *\.\. (_|\[|\|)[^\n]*\n", re.MULTILINE)
_DIRECTIVE_TO_DROP = re.compile(
    r"^( *)\.\. (?:[\w-]+:)?"
    r"(?:module|currentmodule|index|image|figure|include|toctree|admonition::|seealso|rst-class|highlight|"
    r"autosummary|plot)"
    r"[^\n]*\n(?:\1[ \t]+[^\n]*\n|\n(?=\1[ \t]))*",  # with its indented content
    re.MULTILINE,
)
_DIRECTIVE_NAME = re.compile(r"^ *\.\. (?:[\w-]+:)?[\w-]+:: *", re.MULTILINE)
_FIELD = re.compile(r"^ *:[\w-]+:.*\n", re.MULTILINE)
_UNDERLINE = re.compile(r"^[=~\-^\"'#*+]{4,}$\n?", re.MULTILINE)


def plain_text(source: str) -> str:
    """Formulas in dollars, roles as their labels, directives unwrapped or dropped, code kept."""
    text = re.sub(r":math:`([^`]*)`", r"$\1$", source)
    text = _MATH_BLOCK.sub(_displayed_formula, text)
    text = _ROLE.sub(_label, text).replace("``", "`")
    for unwanted in (_TARGET, _DIRECTIVE_TO_DROP, _DIRECTIVE_NAME, _FIELD, _UNDERLINE):
        text = unwanted.sub("", text)
    return text.replace("::\n", ":\n")


def plain_title(source: str) -> str:
    return _ROLE.sub(r"\1", source).replace("``", "")


def _displayed_formula(block: re.Match[str]) -> str:
    formula = " ".join(word for word in block[2].split() if word != ":nowrap:")
    return f"{block[1]}$$ {formula} $$\n\n"


def _label(role: re.Match[str]) -> str:
    """`~package.module.name` shows its last part only, `label <target>` the label."""
    label = role[1]
    if label.startswith("~"):
        label = label.lstrip("~!").split(".")[-1]
    return re.sub(r"\s*<[^>]*>$", "", label)
