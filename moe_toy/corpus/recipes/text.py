"""Cleaning of plain text."""

import re
import unicodedata

EMAIL = re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]*\w")
MAX_DOCUMENT_LENGTH = 20_000


def normalise(text: str) -> str:
    """NFC, Unix line ends, no control or format characters, no trailing blanks, one empty line at most."""
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
    unwanted = {char for char in set(text) - {"\n", "\t"} if unicodedata.category(char) in {"Cc", "Cf", "Co", "Cs"}}
    text = text.translate(dict.fromkeys(map(ord, unwanted)))
    text = re.sub(r"[ \t]+$", "", text.replace("\u00a0", " "), flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def hide_email_addresses(text: str) -> str:
    return EMAIL.sub("user@example.com", text)


def without_licence_header(source: str) -> str:
    """Source code without the leading comments that state a copyright or a licence."""
    for _ in range(3):
        comment = re.match(r"\s*(/\*.*?\*/|(?:(?://|#)[^\n]*\n)+)", source, re.DOTALL)
        if not comment or not re.search(r"copyright|licen[cs]e|spdx", comment[0], re.IGNORECASE):
            break
        source = source[comment.end() :]
    return source


def pieces(text: str, limit: int = MAX_DOCUMENT_LENGTH) -> list[str]:
    """The text cut at empty lines, so that a piece exceeds the limit only where a paragraph does."""
    cut: list[list[str]] = [[]]
    length = 0
    for paragraph in text.split("\n\n"):
        if length + len(paragraph) > limit and cut[-1]:
            cut.append([])
            length = 0
        cut[-1].append(paragraph)
        length += len(paragraph) + 2
    return ["\n\n".join(paragraphs) for paragraphs in cut]
