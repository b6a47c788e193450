"""How MMMU reads answers: letters out of prose, numbers and phrases out of open responses.

Source: MMMU's official evaluation as LLaVA-HR uses it, oddities included. None of it touches a global random
state.
"""

import re
from collections.abc import Sequence

_EDGE_MARKS = (",", ".", "!", "?", ";", ":", "'")
_TRIVIAL_TAILS = frozenset((":", ",", ".", "!", "?", ";", "'"))
_LEADS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_LONG_RESPONSE = 5

_GROUPED_NUMBER = re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b")
_SCIENTIFIC_NUMBER = re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+")
_PLAIN_NUMBER = re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d)(?![,\d])")


def chosen_letter(response: str, options: Sequence[str]) -> str | None:
    """Return the option letter that a response names, None where it names none.

    Looked for in this order: `(A)`, a lone `A`, and in responses of more than five words the text of an
    option in either case. Of several finds the one whose last occurrence stands furthest right wins.
    """
    for mark in _EDGE_MARKS:
        response = response.strip(mark)
    response = f" {response} "
    letters = [chr(ord("A") + number) for number in range(len(options))]
    for form in ("({})", " {} "):
        if found := _furthest_right(response, {letter: form.format(letter) for letter in letters}):
            return found
    if len(response.split()) > _LONG_RESPONSE:
        texts = {letter: text.lower() for letter, text in zip(letters, options, strict=True)}
        return _furthest_right(response.lower(), texts)
    return None


def open_values(response: str) -> set[str | float]:
    """Return every phrase and number that an open response may mean, normalised."""
    phrases = _key_phrases(response)
    numbers = [number for phrase in phrases for number in found_numbers(phrase)]
    return {value for text in (*phrases, *numbers) for value in normalised(text)}


def found_numbers(text: str) -> list[str]:
    """Return the numbers in a text as they are written: those with grouping commas, with exponent, plain.

    One number may be found in several ways or in part (`1,234.5` gives `1,234` and `234.5`).
    """
    patterns = (_GROUPED_NUMBER, _SCIENTIFIC_NUMBER, _PLAIN_NUMBER)
    return [number for pattern in patterns for number in pattern.findall(text)]


def normalised(text: str) -> tuple[str | float, ...]:
    """Return a number rounded to two decimals, else the text in lower case.

    A lone character comes back with a space before it and with one behind it, so that it isn't found inside a
    word.
    """
    text = text.strip()
    try:
        return (round(float(text.replace(",", "")), 2),)
    except ValueError:
        text = text.lower()
    return (f" {text}", f"{text} ") if len(text) == 1 else (text,)


def is_open_answer_right(values: set[str | float], gold: str | Sequence[str]) -> bool:
    """Compare the values of a response with one gold answer or several.

    A phrase is right if it contains a gold phrase, a number if it equals a gold number.
    """
    golds = [gold] if isinstance(gold, str) else gold
    expected = [value for text in golds for value in normalised(text)]
    phrases = [value for value in expected if isinstance(value, str)]
    return any(
        any(phrase in value for phrase in phrases) if isinstance(value, str) else value in expected
        for value in values
    )


def _furthest_right(response: str, marks: dict[str, str]) -> str | None:
    """Return the letter whose mark occurs last; the first letter of several at one place."""
    places = {letter: response.rfind(mark) for letter, mark in marks.items() if mark in response}
    return max(places, key=places.__getitem__) if places else None


def _key_phrases(response: str) -> list[str]:
    """Return what follows words such as "is" or "therefore" in each line, or else the whole response."""
    response = response.strip().strip(".").lower()
    # The original also splits at ". " before a capital, which no lower-cased text has.
    lines = response.split("\n")
    phrases = []
    for number, line in enumerate(lines, start=1):
        leads = (*_LEADS, "=") if number == len(lines) else _LEADS
        tail = _shortest_tail(line, leads)
        if tail and tail not in _TRIVIAL_TAILS:
            phrases.append(tail)
    return phrases or [response]


def _shortest_tail(line: str, leads: Sequence[str]) -> str:
    """Return the shortest text behind the last occurrence of any lead.

    An empty tail is replaced by the next lead's, however long: the original takes it for "none found yet".
    """
    shortest = ""
    for lead in leads:
        if lead in line:
            tail = line.rsplit(lead, 1)[1].strip()
            if not shortest or len(tail) < len(shortest):
                shortest = tail
    return shortest
