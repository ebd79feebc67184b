"""Whole numbers and fractions."""

from math import gcd
from random import Random

from moe_toy.corpus.recipes.problems.problem import Problem


def column_sum(random: Random) -> Problem:
    a, b, c = random.randint(100, 99999), random.randint(100, 9999), random.randint(10, 999)
    steps = f"{a} + {b} = {a + b}. Then {a + b} - {c} = {a + b - c}."
    return Problem(f"What is {a} + {b} - {c}?", steps, f"{a + b - c}")


def product(random: Random) -> Problem:
    a, b = random.randint(12, 999), random.randint(12, 99)
    tens, units = b // 10 * 10, b % 10
    steps = f"{a} * {b} = {a} * {tens} + {a} * {units} = {a * tens} + {a * units} = {a * b}."
    return Problem(f"Multiply {a} by {b}.", steps, f"{a * b}")


def division(random: Random) -> Problem:
    divisor, quotient = random.randint(3, 40), random.randint(10, 400)
    remainder = random.randint(0, divisor - 1)
    multiple = divisor * quotient
    dividend = multiple + remainder
    return Problem(
        f"Divide {dividend} by {divisor} and give quotient and remainder.",
        f"{divisor} * {quotient} = {multiple}, and {dividend} - {multiple} = {remainder}, "
        f"which is less than {divisor}.",
        f"quotient {quotient}, remainder {remainder}",
    )


def fraction_sum(random: Random) -> Problem:
    a, b, c, d = random.randint(1, 12), random.randint(2, 15), random.randint(1, 12), random.randint(2, 15)
    denominator = b * d // gcd(b, d)
    left, right = a * denominator // b, c * denominator // d
    total = left + right
    factor = gcd(total, denominator)
    reduced = f"{total // factor}/{denominator // factor}"
    reduction = f", and dividing both by {factor} gives {reduced}." if factor > 1 else "."
    return Problem(
        f"Calculate {a}/{b} + {c}/{d} in lowest terms.",
        f"The least common denominator of {b} and {d} is {denominator}. {a}/{b} = {left}/{denominator} "
        f"and {c}/{d} = {right}/{denominator}. The sum is {total}/{denominator}{reduction}",
        reduced if denominator > factor else f"{total // factor}",
    )


def greatest_common_divisor(random: Random) -> Problem:
    a, b = random.randint(40, 3000), random.randint(30, 999)
    divisions = []
    larger, smaller = a, b
    while smaller:
        divisions.append(f"{larger} = {larger // smaller} * {smaller} + {larger % smaller}")
        larger, smaller = smaller, larger % smaller
    steps = f"Euclid's algorithm: {'; '.join(divisions)}."
    return Problem(f"Find the greatest common divisor of {a} and {b}.", steps, f"{larger}")


def prime_factors(random: Random) -> Problem:
    number = random.randint(50, 9999)
    factors, divisions = [], []
    rest, prime = number, 2
    while rest > 1:
        while rest % prime == 0:
            factors.append(prime)
            divisions.append(f"{rest} / {prime} = {rest // prime}")
            rest //= prime
        prime += 1
    answer = " * ".join(map(str, factors))
    return Problem(f"Write {number} as a product of primes.", "; ".join(divisions) + ".", answer)


def modular_power(random: Random) -> Problem:
    base, exponent, modulus = random.randint(2, 30), random.randint(5, 40), random.randint(7, 99)
    rounds = []
    result, square, rest = 1, base % modulus, exponent
    while rest:
        if rest % 2:
            result = result * square % modulus
        rounds.append(f"exponent {rest}, square {square}, result {result}")
        square, rest = square * square % modulus, rest // 2
    steps = f"Square and multiply: {'; '.join(rounds)}."
    return Problem(f"What is {base}^{exponent} modulo {modulus}?", steps, f"{result}")


def number_base(random: Random) -> Problem:
    number, base = random.randint(20, 5000), random.randint(2, 9)
    divisions, digits = [], ""
    rest = number
    while rest:
        divisions.append(f"{rest} = {rest // base} * {base} + {rest % base}")
        digits = f"{rest % base}{digits}"
        rest //= base
    steps = f"{'; '.join(divisions)}. Read the remainders from last to first."
    return Problem(f"Write {number} in base {base}.", steps, digits)
