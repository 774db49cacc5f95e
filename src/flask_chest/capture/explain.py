"""Why a variable of a record is not what it was on ``g``, told without its value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from flask_chest.capture.extractor import CapturedName
from flask_chest.capture.redaction import HASH, MASK, Redact, Verdict
from flask_chest.capture.values import CYCLE, MAX_DEPTH, TOO_DEEP, TRUNCATED, ValueRules
from flask_chest.record import JSONValue


def explanations(
    variables: Mapping[str, JSONValue], rules: ValueRules, asked: Sequence[CapturedName]
) -> Iterator[str]:
    """Return sentences about what *rules* hid or cut of *variables*, and which of those *asked* for they drop."""
    sources = {each.key: each for each in asked}
    for name, value in variables.items():
        source = sources.get(name)
        verdict = source.verdict if source is not None else rules.redaction.verdict(name)
        yield from _of_value(name, value, verdict, rules)
    for each in asked:
        if each.key not in variables and each.verdict.last is not None and each.verdict.last.action == "drop":
            yield f"{each.key} is never kept, by the rule ({each.verdict.last})"


def _of_value(path: str, value: JSONValue, verdict: Verdict, rules: ValueRules) -> Iterator[str]:
    if isinstance(value, str):
        yield from _of_text(path, value, verdict, rules)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _of_value(f"{path}[{number}]", item, verdict, rules)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if key == TRUNCATED:
                yield _cut(path, rules)
            else:
                nested = f"{path}.{key}"
                found = rules.redaction.verdict(key, nested)
                yield from _of_value(nested, item, _joined(verdict, found), rules)


def _of_text(path: str, text: str, verdict: Verdict, rules: ValueRules) -> Iterator[str]:
    if MASK in text:
        yield f"{path} was masked{_by(verdict, 'mask', whole=text == MASK)}"
    if HASH in text:
        yield f"{path} was hashed{_by(verdict, 'hash', whole=text.startswith(HASH))}"
    if text.endswith(TRUNCATED):
        yield _cut(path, rules)
    if text == CYCLE:
        yield f"{path} holds itself"
    if text == TOO_DEEP:
        yield f"{path} is too deep: {MAX_DEPTH} levels are kept"


def _cut(path: str, rules: ValueRules) -> str:
    return (
        f"{path} was cut: a variable has at most {rules.max_value_bytes} bytes, a record {rules.max_record_bytes}"
        " (max_value_bytes, max_record_bytes)"
    )


def _joined(outer: Verdict, inner: Verdict) -> Verdict:
    return Verdict(tuple(dict.fromkeys(outer.patterns + inner.patterns)), inner.judges, inner.last)


def _by(verdict: Verdict, action: str, *, whole: bool) -> str:
    """Return the rules that may have done it; which of several did, only the value would tell."""
    possible: list[Redact] = [rule for rule in verdict.patterns if rule.action == action]
    if whole:
        possible += [rule for rule in verdict.judges if rule.action == action]
        if verdict.last is not None and verdict.last.action == action:
            possible.append(verdict.last)
    if not possible:
        return ", by a rule that no longer exists"
    return f" by the rule ({' or '.join(map(str, possible))})"
