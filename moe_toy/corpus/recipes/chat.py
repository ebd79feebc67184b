"""chat: two strangers talking, turn by turn."""

import json
import re
from collections.abc import Iterator
from typing import Any

from moe_toy.corpus.archives import Archives
from moe_toy.corpus.recipes.recipe import Document, Recipe

# Links, addresses, numbers like those of phones, accounts, coarse words: the conversation is dropped whole.
_PRIVATE_OR_COARSE = re.compile(
    r"https?:|www\.|@\w|\.com\b|\+?\d[\d\s().-]{6,}\d|instagram|snapchat|whats ?app|discord|facebook|twitter"
    r"|my (last|full) name|phone number|\b(fuck|shit|bitch|cunt|nigg|fag|porn|sex|dick|rape)",
    re.IGNORECASE,
)


def documents(archives: Archives) -> Iterator[Document]:
    [(_, dataset)] = archives.files("chitchat-dataset", r"dataset\.json$")
    for key, conversation in json.loads(dataset).items():
        messages = [message for turn in conversation["messages"] for message in turn if message["text"].strip()]
        turns = join_turns(messages)
        text = "\n".join(f"{speaker}: {words}" for speaker, words in turns)
        two_people = len({message["sender"] for message in messages}) == 2
        long_enough = len(turns) >= 6 and len(text) > 400
        if two_people and long_enough and text.isascii() and not _PRIVATE_OR_COARSE.search(text):
            yield Document(key, text, "chitchat-dataset")


def join_turns(messages: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """(A or B, words): what one person writes without interruption is one turn."""
    speakers: dict[str, str] = {}
    turns: list[tuple[str, str]] = []
    for message in messages:
        speaker = speakers.setdefault(message["sender"], "B" if speakers else "A")
        words = " ".join(message["text"].split())
        if turns and turns[-1][0] == speaker:
            before = turns.pop()[1]
            words = before + (" " if before[-1] in ".!?" else ". ") + words
        turns.append((speaker, words))
    return turns


RECIPE = Recipe(
    name="chat",
    stands_for="LMArena",
    content="people chatting with strangers",
    packages=("chitchat-dataset",),
    documents=documents,
)
