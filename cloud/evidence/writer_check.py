"""Check of a text that a language model wrote about a verdict: it may say what the facts say, and nothing else.

Device texts are part of the facts, so an answer counts as hostile. A sentence passes if all of this holds:

1. It names one or two facts, at most one of them about a channel or feature.
2. Each of its numbers is in these facts.
3. A word for too low, too high or a negation is in it only if one of these facts has such a word.
4. It calls something normal, or odd, only if one of these facts does.
5. It names a place in a picture as these facts do, with all of its words.
6. All its other words are words of these facts, of the site's description of normal, or common ones.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from cloud.evidence.facts import Fact

MAX_SENTENCES, MAX_SENTENCE_CHARACTERS = 12, 400
_NUMBER = re.compile(r"\d(?:[\d.,\u202f\u00a0]*\d)?(?:e[+-]?\d+)?", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*")
_FORBIDDEN = re.compile(r"[<>{}\[\]`|\\]|https?:|www\.|[\x00-\x1f\x7f]")
_LOW_TEXT = """
low lower lowest below under fall falls fell falling drop drops dropped smaller less decrease decreased beneath
"""
_HIGH_TEXT = """
high higher highest above over rise rises rose rising larger more increase increased exceed exceeds exceeded beyond
"""
_NOT_TEXT = """
not no never none nothing neither nor without cannot isn't aren't doesn't hardly barely
"""
_COPULA = r"\b(?:is|are|was|were|looks?|seems?|appears?)\s+(?:[a-z]+\s+){0,2}"
_CALLED_NORMAL = re.compile(_COPULA + r"normal(?=\s*(?:[.,;:!?]|$|(?:and|but|to|for|here|at)\b))", re.IGNORECASE)
_CALLED_ODD = re.compile(_COPULA + r"(?:anomalous|odd|unusual|rare)\b|\bfinds?\b.*\bodd\b", re.IGNORECASE)
_PLACE = frozenset(("upper", "lower", "middle", "left", "right", "centre"))
_SPECIFIC = ("channel", "feature", "expected")
_COMMON_TEXT = """
a about according acts after all almost also although among an analyzer analyzers and anomalous anomaly another any
appears are around as at be because been before being both but by clearly clip cloud compared considered could
device does during each earlier edge either even every far find finds first for found frame from further had has
have having how however if image in indicates into is it its itself just kind last likely look looks made makes many
marked may mean means might most much near nearly normal normally now observed occurred odd of off on once one only
or other others our out outside part picture quite range rare rather reading readings reads record reported row same
sample samples second see seen sensor seems several should shows similar since so some source stand stands still
such than that the their them then there these they thing this those through thus to together too towards two
typical typically unusual up usual usually value values verdict verdicts very was way well were what when where
whereas which while whole with within would yet you
"""
_LOW, _HIGH, _NOT, _COMMON = (frozenset(text.split()) for text in (_LOW_TEXT, _HIGH_TEXT, _NOT_TEXT, _COMMON_TEXT))


def checked_text(answer: str, facts: Sequence[Fact], decision: str, normal: str) -> str:
    """Return the text of an answer; raises ValueError with the reason why it is refused.

    The answer is a JSON object `{"decision": ..., "sentences": [{"text": ..., "facts": [NAME, ...]}, ...]}`.
    """
    try:
        value = json.loads(answer)
    except (ValueError, RecursionError):
        raise ValueError("the answer is not JSON") from None
    if not isinstance(value, dict) or set(value) != {"decision", "sentences"}:
        raise ValueError("the answer has other keys than decision and sentences")
    if value["decision"] != decision:
        raise ValueError("the answer names another decision")
    sentences = value["sentences"]
    if not isinstance(sentences, list) or not 0 < len(sentences) <= MAX_SENTENCES:
        raise ValueError(f"the answer has no sentences, or more than {MAX_SENTENCES}")
    known, named, texts = {fact.name: fact.text for fact in facts}, set[str](), []
    for sentence in sentences:
        text, names = _sentence(sentence, known)
        _check_sentence(text, [known[name] for name in names], normal)
        named |= set(names)
        texts.append(text)
    if "verdict" not in named:
        raise ValueError("the answer leaves out the verdict")
    return " ".join(texts)


def _sentence(value: Any, known: Mapping[str, str]) -> tuple[str, list[str]]:
    """Return text and facts of a sentence with the right keys and types."""
    if not isinstance(value, dict) or set(value) != {"text", "facts"}:
        raise ValueError("a sentence has other keys than text and facts")
    text, names = value["text"], value["facts"]
    if not isinstance(text, str) or not 0 < len(text.strip()) <= MAX_SENTENCE_CHARACTERS:
        raise ValueError("a sentence is empty or too long")
    if not isinstance(names, list) or not 0 < len(names) <= 2 or not all(isinstance(name, str) for name in names):
        raise ValueError("a sentence names no fact, or more than two")
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"a sentence names a fact that there is not: {unknown[0][:40]!r}")
    if sum(name.startswith(_SPECIFIC) for name in names) > 1:
        raise ValueError("a sentence mixes the facts of two channels")
    return text.strip(), names


def _check_sentence(text: str, facts: Sequence[str], normal: str) -> None:
    if _FORBIDDEN.search(text):
        raise ValueError("a sentence has markup or an address")
    joined = " ".join(facts)
    if strange := set(_numbers(text)) - set(_numbers(joined)):
        raise ValueError(f"a number is not in the facts: {min(strange)}")
    for claim, what in ((_CALLED_NORMAL, "normal"), (_CALLED_ODD, "odd")):
        if claim.search(text) and not claim.search(joined):
            raise ValueError(f"a sentence calls something {what}, and its facts do not")
    words, given = set(_words(text)), set(_words(joined))
    for group, what in ((_LOW, "too low"), (_HIGH, "too high"), (_NOT, "a negation")):
        if words & group and not given & group:
            raise ValueError(f"a sentence says {what}, and its facts do not")
    if words & _PLACE and words & _PLACE != given & _PLACE:
        raise ValueError("a sentence names another place")
    allowed = {_stem(word) for word in given | _COMMON | _LOW | _HIGH | _NOT | set(_words(normal))}
    if unknown := [word for word in sorted(words) if _stem(word) not in allowed]:
        raise ValueError(f"a word is not in the facts: {unknown[0][:40]!r}")


def _numbers(text: str) -> list[str]:
    """Return the numbers of a text without marks between groups of digits."""
    return [re.sub(r"[,\u202f\u00a0]", "", found).lower() for found in _NUMBER.findall(text)]


def _stem(word: str) -> str:
    """Return a word without its usual endings, so that "baseline" and "baselines" are one."""
    for ending in ("'s", "ing", "ed", "es", "s", "e"):
        if word.endswith(ending) and len(word) > len(ending) + 2:
            return word.removesuffix(ending)
    return word


def _words(text: str) -> list[str]:
    return [word.replace("\u2019", "'") for word in _WORD.findall(text.lower())]
