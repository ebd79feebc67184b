"""What a generated problem is, and how its numbers and polynomials are drawn and written."""

import re
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

PEOPLE = (
    "Ana", "Ben", "Chloe", "David", "Eva", "Farid", "Grace", "Hugo",
    "Iris", "Jonas", "Kira", "Leo", "Mina", "Noah", "Olga", "Paul",
)  # fmt: skip
THINGS = ("apples", "pencils", "stamps", "marbles", "tickets", "books", "eggs", "cards", "shells", "coins")


class Problem(NamedTuple):
    question: str
    steps: str
    answer: str

    def __str__(self) -> str:
        return f"Problem: {self.question}\nSolution: {self.steps}\nAnswer: {self.answer}"


def nonzero(random: Random, low: int, high: int) -> int:
    return random.choice([number for number in range(low, high + 1) if number])


def polynomial(coefficients: Sequence[int], variable: str) -> str:
    """Coefficients of rising powers, written from the highest: `[-6, -1, 1]` is `x^2 - x - 6`."""
    powers = ["", variable, *(f"{variable}^{power}" for power in range(2, len(coefficients)))]
    terms = [
        f"{_sign(coefficient)} {abs(coefficient)}{power}"
        for power, coefficient in zip(powers, coefficients, strict=False)
        if coefficient
    ]
    written = " ".join(reversed(terms)).removeprefix("+ ") or "0"
    return re.sub(r"\b1(?=[a-z])", "", written)


def signed(number: int) -> str:
    return f"{_sign(number)} {abs(number)}"


def _sign(number: int) -> str:
    return "-" if number < 0 else "+"
