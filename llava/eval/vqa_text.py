"""Answer normalisation and soft accuracy of the VQA family (TextVQA, VQAv2, VizWiz).

`normalize_answer` is the EvalAI processor: VQAv2 and VizWiz answers pass through it before submission,
TextVQA answers before scoring. `normalize_official` is that chain without its first step: the VQA server's,
and `official_accuracy` is what that server gives for one answer.
"""

import re
from collections.abc import Sequence

ANSWERS_PER_QUESTION = 10
"""Annotators asked per question; the soft accuracy is defined for exactly this many."""

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBER_WORDS = {"none": "0"} | {word: str(value) for value, word in enumerate(_NUMBERS)}
_ARTICLES = frozenset({"a", "an", "the"})
_PUNCTUATION = tuple(';/[]"{}()=+\\_-><@`,?!')
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
_MAX_PERIODS_REMOVED = 32  # the original passes a flag constant (re.UNICODE) where the count belongs

# Upstream's 120 entries, kept with their oddities: somebody'd loses its apostrophe, let's maps to itself, and
# the capitalised keys never match lower-cased text.
_CONTRACTION_TABLE = """
    aint=ain't arent=aren't cant=can't couldve=could've couldnt=couldn't couldn'tve=couldn't've
    couldnt've=couldn't've didnt=didn't doesnt=doesn't dont=don't hadnt=hadn't hadnt've=hadn't've
    hadn'tve=hadn't've hasnt=hasn't havent=haven't hed=he'd hed've=he'd've he'dve=he'd've hes=he's
    howd=how'd howll=how'll hows=how's Id've=I'd've I'dve=I'd've Im=I'm Ive=I've isnt=isn't itd=it'd
    itd've=it'd've it'dve=it'd've itll=it'll let's=let's maam=ma'am mightnt=mightn't mightnt've=mightn't've
    mightn'tve=mightn't've mightve=might've mustnt=mustn't mustve=must've neednt=needn't notve=not've
    oclock=o'clock oughtnt=oughtn't ow's'at='ow's'at 'ows'at='ow's'at 'ow'sat='ow's'at shant=shan't
    shed've=she'd've she'dve=she'd've she's=she's shouldve=should've shouldnt=shouldn't
    shouldnt've=shouldn't've shouldn'tve=shouldn't've somebody'd=somebodyd somebodyd've=somebody'd've
    somebody'dve=somebody'd've somebodyll=somebody'll somebodys=somebody's someoned=someone'd
    someoned've=someone'd've someone'dve=someone'd've someonell=someone'll someones=someone's
    somethingd=something'd somethingd've=something'd've something'dve=something'd've
    somethingll=something'll thats=that's thered=there'd thered've=there'd've there'dve=there'd've
    therere=there're theres=there's theyd=they'd theyd've=they'd've they'dve=they'd've theyll=they'll
    theyre=they're theyve=they've twas='twas wasnt=wasn't wed've=we'd've we'dve=we'd've weve=we've
    werent=weren't whatll=what'll whatre=what're whats=what's whatve=what've whens=when's whered=where'd
    wheres=where's whereve=where've whod=who'd whod've=who'd've who'dve=who'd've wholl=who'll whos=who's
    whove=who've whyll=why'll whyre=why're whys=why's wont=won't wouldve=would've wouldnt=wouldn't
    wouldnt've=wouldn't've wouldn'tve=wouldn't've yall=y'all yall'll=y'all'll y'allll=y'all'll
    yall'd've=y'all'd've y'alld've=y'all'd've y'all'dve=y'all'd've youd=you'd youd've=you'd've
    you'dve=you'd've youll=you'll youre=you're youve=you've
"""
_CONTRACTIONS = {key: value for key, _, value in (pair.partition("=") for pair in _CONTRACTION_TABLE.split())}


def normalize_answer(text: str) -> str:
    """Return the form in which the EvalAI processor compares an answer.

    `"The two dogs."` -> `"2 dogs"`, `"Dont know"` -> `"don't know"`, `"1,000"` -> `"1000"`.
    """
    lowered = text.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    return normalize_official(lowered)


def normalize_official(text: str) -> str:
    """Return the official VQA evaluator's form: white space, punctuation, numbers, articles, contractions."""
    words = (_NUMBER_WORDS.get(word, word) for word in _strip_punctuation(_flat(text)).lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def soft_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Score one answer against ten annotators, in [0, 1]: 0, .3, .6, .9, 1 for 0, 1, 2, 3, >= 4 equal ones.

    It is the mean over annotators of min(1, matches among the other nine / 3).
    """
    if len(answers) != ANSWERS_PER_QUESTION:
        raise ValueError(
            f"expected {ANSWERS_PER_QUESTION} reference answers, got {len(answers)}: {list(answers)}"
        )
    matches = [normalize_answer(answer) for answer in answers].count(normalize_answer(prediction))
    own_left_out = matches * min(1.0, (matches - 1) / 3)
    another_left_out = (ANSWERS_PER_QUESTION - matches) * min(1.0, matches / 3)
    return (own_left_out + another_left_out) / ANSWERS_PER_QUESTION


def official_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Score one answer as the official VQA evaluator does, in [0, 1].

    It is the mean over annotators of min(1, matches among the others / 3). Texts are normalised only where
    the annotators disagree: with one voice they are compared as they are, capitals included.
    """
    if not answers:
        raise ValueError("expected at least one reference answer, got none")
    given, references = _flat(prediction), [_flat(answer) for answer in answers]
    if len(set(references)) > 1:
        given, references = normalize_official(given), [normalize_official(text) for text in references]
    matches = [reference == given for reference in references]
    return sum(min(1.0, (sum(matches) - own) / 3) for own in matches) / len(matches)


def _flat(text: str) -> str:
    return text.strip().replace("\n", " ").replace("\t", " ").strip()


def _strip_punctuation(text: str) -> str:
    """Delete or blank each mark (by its surroundings in the incoming text), then delete full stops."""
    has_comma_in_number = _COMMA_IN_NUMBER.search(text) is not None
    result = text
    for mark in _PUNCTUATION:
        touches_space = f"{mark} " in text or f" {mark}" in text
        result = result.replace(mark, "" if touches_space or has_comma_in_number else " ")
    return _PERIOD.sub("", result, count=_MAX_PERIODS_REMOVED)
