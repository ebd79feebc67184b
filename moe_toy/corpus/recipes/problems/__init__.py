"""Generators of school mathematics: each draws numbers and returns question, worked steps and answer."""

from collections.abc import Callable
from random import Random

from moe_toy.corpus.recipes.problems import algebra, numbers, stories
from moe_toy.corpus.recipes.problems.problem import Problem

# The order is part of the corpus: the generator of the domain math draws from this list.
KINDS: tuple[Callable[[Random], Problem], ...] = (
    numbers.column_sum,
    numbers.product,
    numbers.division,
    numbers.fraction_sum,
    algebra.linear_equation,
    algebra.linear_system,
    algebra.quadratic_equation,
    numbers.greatest_common_divisor,
    numbers.prime_factors,
    algebra.derivative,
    algebra.polynomial_value,
    algebra.expansion,
    algebra.arithmetic_series,
    stories.shopping,
    stories.meeting,
    numbers.modular_power,
    numbers.number_base,
    stories.drawing_balls,
    stories.mean_and_median,
    algebra.matrix_product,
    stories.combinations,
)
