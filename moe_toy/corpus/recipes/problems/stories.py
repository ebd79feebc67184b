"""Word problems, chance and counting."""

from math import comb, factorial, gcd, perm
from random import Random

from moe_toy.corpus.recipes.problems.problem import PEOPLE, THINGS, Problem


def shopping(random: Random) -> Problem:
    price, other_price = random.randint(2, 30), random.randint(2, 40)
    boxes, other_boxes = random.randint(2, 12), random.randint(2, 9)
    percent = random.choice([5, 10, 20, 25, 50])
    who, (thing, other_thing) = random.choice(PEOPLE), random.sample(THINGS, 2)
    cost, other_cost = boxes * price, other_boxes * other_price
    total = cost + other_cost
    discount = total * percent / 100
    paid = f"{total - discount:.2f}"
    return Problem(
        f"{who} buys {boxes} boxes of {thing} at {price} dollars each and {other_boxes} boxes of {other_thing} "
        f"at {other_price} dollars each, with {percent} percent off the total. How much does {who} pay?",
        f"{boxes} * {price} = {cost} and {other_boxes} * {other_price} = {other_cost}, together {total} dollars. "
        f"{percent} percent of {total} is {discount:.2f}. {total} - {discount:.2f} = {paid}.",
        f"{paid} dollars",
    )


def meeting(random: Random) -> Problem:
    speed, other_speed, hours = random.randint(30, 120), random.randint(30, 120), random.randint(2, 9)
    who, other = random.sample(PEOPLE, 2)
    approach = speed + other_speed
    distance = approach * hours
    return Problem(
        f"{who} and {other} start {distance} km apart and drive towards each other at {speed} km/h and "
        f"{other_speed} km/h. When do they meet, and how far has {who} gone?",
        f"They approach at {speed} + {other_speed} = {approach} km/h, so they meet after "
        f"{distance} / {approach} = {hours} hours. {who} has gone {speed} * {hours} = {speed * hours} km.",
        f"{hours} hours, {speed * hours} km",
    )


def drawing_balls(random: Random) -> Problem:
    red, blue, green = random.randint(2, 9), random.randint(2, 9), random.randint(1, 9)
    total = red + blue + green
    favourable, possible = red * (red - 1), total * (total - 1)
    factor = gcd(favourable, possible)
    return Problem(
        f"A bag holds {red} red, {blue} blue and {green} green balls. Two are drawn without replacement. "
        "What is the probability that both are red?",
        f"There are {total} balls. The probability is {red}/{total} * {red - 1}/{total - 1} = {favourable}/{possible}.",
        f"{favourable // factor}/{possible // factor}",
    )


def mean_and_median(random: Random) -> Problem:
    numbers = [random.randint(1, 99) for _ in range(random.choice([5, 7, 9]))]
    ordered, count = sorted(numbers), len(numbers)
    mean = f"{sum(numbers) / count:.2f}"
    return Problem(
        f"Give the mean and the median of {', '.join(map(str, numbers))}.",
        f"Sorted: {', '.join(map(str, ordered))}. The sum is {sum(numbers)}, divided by {count} gives {mean}.",
        f"mean {mean}, median {ordered[count // 2]}",
    )


def combinations(random: Random) -> Problem:
    total, chosen = random.randint(5, 18), random.randint(2, 4)
    factors = " * ".join(str(total - i) for i in range(chosen))
    return Problem(
        f"In how many ways can {chosen} of {total} {random.choice(THINGS)} be chosen?",
        f"C({total}, {chosen}) = {factors} / {factorial(chosen)} = {perm(total, chosen)} / {factorial(chosen)}.",
        f"{comb(total, chosen)}",
    )
