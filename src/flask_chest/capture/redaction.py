"""What is hidden of a request before it leaves its thread: by name, by pattern, by the app's judgement."""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import translate
from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias, get_args

import msgspec

from flask_chest.capture.options import listed
from flask_chest.errors import ConfigurationError
from flask_chest.record import JSONValue

Action: TypeAlias = Literal["mask", "drop", "hash", "keep"]

MASK = "[masked]"
HASH = "hmac:"
"""Beginning of a hash, before 32 hexadecimal digits."""
MIN_KEY_BYTES = 16

SECRET_NAMES = (
    "apikey authorization bearer cookie cookies credential credentials csrf jwt passcode passphrase passwd "
    "password passwords pwd secret secrets token xsrf "
    "access_key api_key encryption_key private_key signing_key "
    "access_keys api_keys encryption_keys private_keys signing_keys"
).split()

_WORDS = re.compile(r"[a-z]+|[0-9]+|[A-Z]+(?![a-z])|[A-Z][a-z]+")
_HASH_DIGITS = 32


@dataclass(frozen=True, slots=True)
class Redact:
    """Hides what all of its conditions hold for; at least one is needed.

    *names* are globs, matched on the whole name, on the path to a nested key (``user.email``) and on whole
    words of a name in any spelling: ``card`` hides ``card``, ``cardNumber`` and ``old-card``, not ``discard``.
    *pattern* is a regular expression: of a text only what it finds is hidden. *when* is called with the path
    and the value as it would be kept; if it raises, the value is hidden.

    ``"mask"`` leaves ``[masked]``, ``"drop"`` nothing, ``"hash"`` an HMAC-SHA-256 under ``CHEST_HASH_KEY``, which
    is the same for the same value; a text and a number of the same digits share it. ``"keep"`` exempts from the
    rules that follow, the built-in list included.
    """

    names: str | Sequence[str] = ()
    pattern: str | re.Pattern[str] | None = field(default=None, kw_only=True)
    when: Callable[[str, JSONValue], bool] | None = field(default=None, kw_only=True)
    action: Action = field(default="mask", kw_only=True)

    def __post_init__(self) -> None:
        names = (self.names,) if isinstance(self.names, str) else tuple(self.names)
        for name in names:
            if not isinstance(name, str) or not name:  # type: ignore[redundant-expr]  # callers may be unchecked
                raise ConfigurationError(f"names must be globs, as in card_*, got {name!r}")
        if not names and self.pattern is None and self.when is None:
            raise ConfigurationError("Redact() requires at least one of names, pattern or when")
        if self.action not in get_args(Action):
            raise ConfigurationError(f"the action {self.action!r} is not one of {', '.join(get_args(Action))}")
        if self.when is not None and not callable(self.when):
            raise ConfigurationError(f"when must be callable, got a {type(self.when).__name__}")
        if self.action == "keep" and (not names or self.pattern is not None or self.when is not None):
            raise ConfigurationError('with the action "keep" it takes names and nothing else')
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "pattern", None if self.pattern is None else _compiled(self.pattern))

    def __str__(self) -> str:
        """Return which rule it is, in the words of `explain`."""
        pattern = self.pattern.pattern if isinstance(self.pattern, re.Pattern) else None
        parts = [f"names {', '.join(self.names)}"] if self.names else []
        parts += [f"pattern {pattern}"] if pattern is not None else []
        parts += [f"when {getattr(self.when, '__qualname__', 'it says so')}"] if self.when is not None else []
        return f"{self.action}: {', '.join(parts)}"


class Verdict(NamedTuple):
    """The rules that are for one name."""

    patterns: tuple[Redact, ...] = ()
    judges: tuple[Redact, ...] = ()
    """Rules that look at the value."""
    last: Redact | None = None
    """Rule that decides without a look at the value; no rule after it counts."""


NOTHING_HIDDEN = Verdict()
BUILT_IN = Redact(SECRET_NAMES)


class Redaction:
    """The rules of one chest, the built-in list last."""

    def __init__(self, rules: Sequence[Redact] = (), *, key: str | None = None) -> None:
        """Take *rules* in their order, and the *key* for hashes."""
        self.rules = (*rules, BUILT_IN)
        self._key = (key or "").encode()
        self._by_path = [
            (number, matches)
            for number, rule in enumerate(self.rules)
            if (matches := _path_matcher([name for name in rule.names if "." in name])) is not None
        ]
        self.needs_paths = bool(self._by_path) or any(rule.when is not None for rule in self.rules)
        """Else the name alone decides."""
        self._by_name = [_name_matcher([name for name in rule.names if "." not in name]) for rule in self.rules]
        self._of_name: Callable[[str], Verdict] = lru_cache(maxsize=4096)(self._verdict)
        self.patterns = self.verdict("").patterns
        """Patterns for any text."""

    def verdict(self, name: str, path: str | None = None) -> Verdict:
        """Return the rules for what has *name*; *path* leads to it, where it is nested.

        To look at a name takes a time in proportion to its length, and is done once. A path, which is longer
        and comes but once, is only looked at for the rules that name one.
        """
        path = name if path is None else path
        found = [number for number, matches in self._by_path if matches(path)] if self._by_path else None
        return self._verdict(name, found) if found else self._of_name(name)

    def _verdict(self, name: str, by_path: Sequence[int] = ()) -> Verdict:
        patterns: list[Redact] = []
        judges: list[Redact] = []
        last: Redact | None = None
        for number, (rule, matches) in enumerate(zip(self.rules, self._by_name, strict=True)):
            if rule.names and number not in by_path and not matches(name):
                continue
            if rule.pattern is not None:
                patterns.append(rule)
            elif rule.when is not None:
                judges.append(rule)
            else:
                last = None if rule.action == "keep" else rule
                break
        return Verdict(tuple(patterns), tuple(judges), last) if patterns or judges or last else NOTHING_HIDDEN

    def hashed(self, value: JSONValue) -> str:
        """Return what takes the place of *value*."""
        raw = value.encode(errors="surrogatepass") if isinstance(value, str) else msgspec.json.encode(value)
        return HASH + hmac.digest(self._key, raw, "sha256").hex()[:_HASH_DIGITS]

    def cleaned(self, text: str, patterns: Iterable[Redact]) -> str | None:
        """Hide in *text* what *patterns* find; ``None`` if it is to be dropped."""
        for rule in patterns:
            if not isinstance(rule.pattern, re.Pattern):
                continue
            if rule.action == "drop":
                if rule.pattern.search(text):
                    return None
            elif rule.action == "hash":
                text = rule.pattern.sub(lambda found: self.hashed(found[0]), text)
            else:
                text = rule.pattern.sub(MASK, text)
        return text


def parse_redact(value: object, setting: str) -> tuple[Redact, ...]:
    """Check rules: each a `Redact`, a glob, or a mapping of options, as in JSON. Raises `ConfigurationError`."""
    rules = listed(value, str | Redact, f"{setting} must be a list of globs or rules")
    return tuple(_rule(each, setting) for each in rules)


def _rule(value: object, setting: str) -> Redact:
    if isinstance(value, Redact):
        return value
    if isinstance(value, str | Mapping):
        try:
            return Redact(value) if isinstance(value, str) else Redact(**value)
        except ConfigurationError as exc:
            raise ConfigurationError(f"{setting} has a wrong rule: {exc}") from exc
        except TypeError:
            raise ConfigurationError(
                f"{setting} has a rule with {sorted(map(str, value))}; it takes names, pattern and action"
            ) from None
    raise ConfigurationError(f"{setting} must hold globs or rules, got {value!r}")


def _compiled(pattern: str | re.Pattern[str]) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except (re.error, TypeError) as exc:
        raise ConfigurationError(f"invalid regular expression {pattern!r}: {exc}") from exc


def _name_matcher(globs: Sequence[str]) -> Callable[[str], bool]:
    if not globs:
        return lambda _: False
    folded = [_folded(glob) for glob in globs]
    whole = _any_of(folded).fullmatch
    # One search for all globs and words, each on a line: a glob's wildcard ends with its word.
    lines = "|".join(_without_end(glob.replace("_", "\n"), across_lines=False) for glob in folded)
    within = re.compile(rf"\n(?:{lines})(?=\n)").search

    def matches(name: str) -> bool:
        if whole(_folded(name)) or ("." in name and whole(_folded(name.rpartition(".")[2]))):
            return True
        words = "\n".join(_WORDS.findall(name)).lower()
        return within(f"\n{words}\n") is not None

    return matches


def _path_matcher(globs: Sequence[str]) -> Callable[[str], bool] | None:
    if not globs:
        return None
    whole = _any_of([_folded(glob) for glob in globs]).fullmatch
    return lambda path: whole(_folded(path)) is not None


def _folded(name: str) -> str:
    return name.lower().replace("-", "_")


def _any_of(globs: Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(_without_end(glob) for glob in globs))


def _without_end(glob: str, *, across_lines: bool = True) -> str:
    """Translate *glob* to an expression that may stand within another."""
    body = translate(glob).removeprefix("(?s:")[: -len(r")\Z")]
    return f"(?s:{body})" if across_lines else f"(?:{body})"
