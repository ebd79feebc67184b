"""Equations, polynomials, sequences and matrices."""

from random import Random

from moe_toy.corpus.recipes.problems.problem import Problem, nonzero, polynomial, signed


def linear_equation(random: Random) -> Problem:
    solution, left, right = nonzero(random, -20, 20), nonzero(random, 2, 15), nonzero(random, -9, 1)
    variable = random.choice("xyzkmnpw")
    constant = nonzero(random, -50, 50)
    slope = left - right
    left_side = polynomial([constant, left], variable)
    right_side = polynomial([slope * solution + constant, right], variable)
    return Problem(
        f"Solve {left_side} = {right_side} for {variable}.",
        f"Move the terms in {variable} to the left: {polynomial([0, slope], variable)} = {slope * solution}. "
        f"Divide by {slope}.",
        f"{variable} = {solution}",
    )


def linear_system(random: Random) -> Problem:
    x, y = nonzero(random, -9, 9), nonzero(random, -9, 9)
    a, b, c = nonzero(random, 1, 8), nonzero(random, -8, 8), nonzero(random, 1, 8)
    d = b + nonzero(random, 1, 5)
    if a * d == b * c:  # no unique solution
        d += 1
    first, second = a * x + b * y, c * x + d * y
    determinant = a * d - b * c
    return Problem(
        f"Solve the system {a}x {signed(b)}y = {first}; {c}x {signed(d)}y = {second}.",
        f"The determinant is {a}*({d}) - ({b})*{c} = {determinant}. By Cramer's rule "
        f"x = {first * d - b * second}/{determinant} and y = {a * second - c * first}/{determinant}.",
        f"x = {x}, y = {y}",
    )


def quadratic_equation(random: Random) -> Problem:
    p, q = nonzero(random, -12, 12), nonzero(random, -12, 12)
    equal = f"x = {p}"
    different = f"x = {min(p, q)} or x = {max(p, q)}"
    return Problem(
        f"Find the roots of {polynomial([p * q, -p - q, 1], 'x')} = 0.",
        f"We need two numbers with sum {p + q} and product {p * q}: {p} and {q}. "
        f"So the left side is (x {signed(-p)})(x {signed(-q)}).",
        equal if p == q else different,
    )


def derivative(random: Random) -> Problem:
    coefficients = [random.randint(-15, 15) for _ in range(random.randint(3, 6))]
    variable, order = random.choice("xtuhqs"), random.randint(1, 2)
    derived, steps = coefficients, []
    for number in range(1, order + 1):
        derived = [power * coefficient for power, coefficient in enumerate(derived)][1:]
        steps.append(f"Derivative {number}: {polynomial(derived, variable)}.")
    which = "first" if order == 1 else "second"
    return Problem(
        f"Find the {which} derivative of {polynomial(coefficients, variable)} with respect to {variable}.",
        " ".join(steps),
        polynomial(derived, variable),
    )


def polynomial_value(random: Random) -> Problem:
    coefficients = [nonzero(random, -9, 9) for _ in range(random.randint(3, 5))]
    x, name = nonzero(random, -6, 6), random.choice("fghp")
    terms = [coefficient * x**power for power, coefficient in enumerate(coefficients)]
    return Problem(
        f"Let {name}(x) = {polynomial(coefficients, 'x')}. Compute {name}({x}).",
        f"The terms are {', '.join(map(str, reversed(terms)))}, and their sum is {sum(terms)}.",
        f"{sum(terms)}",
    )


def expansion(random: Random) -> Problem:
    left = [nonzero(random, -9, 9) for _ in range(2)]
    right = [nonzero(random, -9, 9) for _ in range(random.randint(2, 3))]
    product, collected = [], []
    for power in range(len(left) + len(right) - 1):
        pairs = [(left[i], right[power - i]) for i in range(len(left)) if 0 <= power - i < len(right)]
        product.append(sum(a * b for a, b in pairs))
        collected.append(f"y^{power}: " + " + ".join(f"({a})({b})" for a, b in pairs))
    return Problem(
        f"Expand ({polynomial(left, 'y')})({polynomial(right, 'y')}).",
        f"Collect by powers: {'; '.join(collected)}.",
        polynomial(product, "y"),
    )


def arithmetic_series(random: Random) -> Problem:
    first, step, count = random.randint(-20, 40), nonzero(random, -6, 12), random.randint(8, 60)
    last = first + (count - 1) * step
    return Problem(
        f"Find the sum of the first {count} terms of the arithmetic sequence "
        f"{first}, {first + step}, {first + 2 * step}, ...",
        f"The last term is {first} + {count - 1} * {step} = {last}. The sum is {count} * ({first} + {last}) / 2.",
        f"{count * (first + last) // 2}",
    )


def matrix_product(random: Random) -> Problem:
    a, b, c, d, e, f, g, h = (random.randint(-9, 9) for _ in range(8))
    entries = [
        (f"{row[0]}*{column[0]} + {row[1]}*{column[1]}", row[0] * column[0] + row[1] * column[1])
        for row in ((a, b), (c, d))
        for column in ((e, g), (f, h))
    ]
    steps = ", ".join(f"{formula} = {value}" for formula, value in entries)
    p, q, r, s = (value for _, value in entries)
    return Problem(
        f"Multiply the matrices [[{a}, {b}], [{c}, {d}]] and [[{e}, {f}], [{g}, {h}]].",
        f"Row by column: {steps}.".replace("+ -", "- ").replace("*-", "*(-1)*"),
        f"[[{p}, {q}], [{r}, {s}]]",
    )
