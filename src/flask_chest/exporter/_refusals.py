"""What InfluxDB's refusals mean, by release: version 2, version 3, and what speaks as they do."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask_chest.exporter._http import Answer

# Version 2 says "message", the others "error", to which version 3 adds an "error_message" for each line. They are
# looked for, as a long answer is cut off and no JSON; a value cannot pass for one, since its quotes are escaped.
_COMPLAINT = re.compile(r'"(?:message|error|error_message)"\s*:\s*("(?:[^"\\]|\\.)*")')
_CONFLICT = re.compile(r'input field "(?P<name>.*)" on measurement ".*" is type (?P<kind>\w+),')
_CONFLICT_3 = re.compile(
    r"^invalid column type for column '(?P<name>.*)', expected (?P<kept>[\w:]+), got (?P<kind>[\w:]+)$",
    re.MULTILINE,
)
_ANY_CONFLICT = re.compile(r"field type conflict|invalid column type")
_NEW_TAG = re.compile(r"tag set is immutable")
_TOO_MANY = re.compile(r"would exceed number of (?P<what>columns|tag columns|tables)\b.*?limit of (?P<most>\d+)")


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that is no success."""

    status: int
    complaint: str
    """InfluxDB's own words, which may quote values; empty where they are not in InfluxDB's form."""

    @classmethod
    def read(cls, answer: Answer) -> Refusal:
        """Read *answer*."""
        quoted = _COMPLAINT.findall(answer.body.decode(errors="replace"))
        return cls(answer.status, "\n".join(_unquoted(each) for each in quoted))

    @property
    def is_conflict(self) -> bool:
        """Whether it is about the type of a field."""
        return _ANY_CONFLICT.search(self.complaint) is not None

    @property
    def conflicts(self) -> frozenset[tuple[str, str]]:
        """The fields that the server has with another type, with InfluxDB's names of the types they came with."""
        # Some releases quote the name as Go does, others write it as it is.
        version_2 = {
            (name, found["kind"])
            for found in _CONFLICT.finditer(self.complaint)
            for name in (found["name"], found["name"].replace('\\"', '"'))
        }
        version_3 = {(found["name"], _last(found["kind"])) for found in _CONFLICT_3.finditer(self.complaint)}
        return frozenset(version_2 | version_3)

    @property
    def is_of_tags(self) -> bool:
        """Whether the server has other tags than those that came."""
        came_as = {_last(found["kind"]) for found in _CONFLICT_3.finditer(self.complaint)}
        return "tag" in came_as or _NEW_TAG.search(self.complaint) is not None

    @property
    def verdict(self) -> str | None:
        """Why the records will never be taken, in words without values; ``None`` when they may yet be."""
        if self.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return "takes no request of this size (413)"
        # Others answer 400 too: a TLS port that is spoken to without TLS, a proxy.
        if self.status not in {HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY} or not self.complaint:
            return None
        return self._sentence()

    def _sentence(self) -> str:
        if self.is_of_tags:
            return (
                "has other tags in this table since its first write, and never changes them; "
                "give tags and custom_tags as they were, or another measurement"
            )
        if self.is_conflict:
            return "has a field of another type, under its suffixed name too"
        if found := _TOO_MANY.search(self.complaint):
            return (
                f"takes no more than {found['most']} {found['what']}, and these points bring new ones; "
                "send fewer variables by transform, or use another measurement or bucket"
            )
        if "beyond retention policy" in self.complaint:
            return "refused what is older than the bucket keeps"
        return f"refused the points ({self.status}); why is in its log: its answer may quote values"


def _unquoted(quoted: str) -> str:
    try:
        return str(json.loads(quoted))
    except ValueError:
        return ""


def _last(kind: str) -> str:
    return kind.rpartition("::")[2]
