"""What to do for the requests to one route by one method: which chests record, and which variables.

Rules are joined once for each route and method, not in each request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import msgspec
from flask import Flask

from flask_chest._process import pass_interruption
from flask_chest.capture.extractor import Extractor
from flask_chest.capture.tracking import Names, Rule, TrackedNames, is_recorded, rules_of
from flask_chest.declared import Check
from flask_chest.extension.state import ChestState
from flask_chest.protocols import RequestIdGenerator
from flask_chest.request_ids import new_request_id, normalise_request_id


class Asked(NamedTuple):
    """Variables that one chest asks for."""

    state: ChestState
    capture: Extractor


class RoutePlan(msgspec.Struct, frozen=True):
    """What to do for one route and method: made once, used for every request to it; nothing unless said."""

    view: object = None
    endpoint: str | None = None
    route: str | None = None
    """URL rule, or ``None`` where nothing matched."""
    method: str = ""
    """HTTP method, or empty for one that a client invented."""
    asked: tuple[Asked, ...] = ()
    """Variables that each chest asks for; the request is not recorded if there are none."""
    checks: Mapping[ChestState, Sequence[Check]] = {}
    """What the variables of each chest are compared with; chests for which no class declares any are left out."""
    make_request_id: Callable[[], str] = new_request_id
    response_header: str | None = None
    """Name of the response header that holds the request id."""
    samples: bool = False
    """Whether a chest keeps only a share of the requests."""
    tells_errors: bool = False
    """Whether a chest keeps the texts of exceptions."""

    @classmethod
    def make(
        cls,
        states: Iterable[ChestState],
        app: Flask,
        view: object,
        *,
        endpoint: str | None,
        route: str | None,
        method: str,
        ran: Sequence[Rule] = (),
    ) -> RoutePlan:
        """Return a plan that joins the rules of the chests, the blueprints, the *view* and what else *ran*."""
        rules = rules_of(view, method) if view is not None else ()
        rules = tuple(dict.fromkeys((*rules, *ran)))
        asked: list[Asked] = []
        for state in states if is_recorded(view) else ():
            names = _names(state, rules, app, endpoint=endpoint, route=route, method=method)
            if names is not None:
                asked.append(Asked(state, Extractor(names, state.value_rules)))
        asking = [each.state for each in asked]
        generators = [rule.request_id_generator for rule in rules]
        generators += [state.request_id_generator for state in asking]
        chosen = next((generator for generator in generators if generator is not None), None)
        return cls(
            view=view,
            endpoint=endpoint,
            route=route,
            method=method,
            asked=tuple(asked),
            checks={each.state: each.capture.checks for each in asked if each.capture.checks},
            make_request_id=new_request_id if chosen is None else partial(_request_id, chosen, asking),
            response_header=next(filter(None, (state.settings.response_header for state in asking)), None),
            samples=any(state.sampling is not None for state in asking),
            tells_errors=any(state.settings.error_messages for state in asking),
        )


NOTHING_ASKED = RoutePlan()
"""Plan of a request whose route is not known yet."""


def _names(
    state: ChestState,
    rules: Sequence[Rule],
    app: Flask,
    *,
    endpoint: str | None,
    route: str | None,
    method: str,
) -> Names | None:
    """Return all names that are asked for the chest of *state*, or ``None`` if no rule asks."""
    asked: list[TrackedNames] = []
    if state.app_rule is not None and state.app_rule.covers(endpoint, route):
        asked.append(state.app_rule.tracked)
    asked += [rule.tracked for rule in state.blueprint_rules if rule.covers(app, endpoint)]
    asked += [rule.tracked for rule in rules if rule.chests is None or state.chest in rule.chests]
    if not asked:
        return None
    joined = state.additions
    for tracked in asked:
        joined |= tracked.for_method(method)
    return joined


def _request_id(generate: RequestIdGenerator, asking: Sequence[ChestState]) -> str:
    try:
        return normalise_request_id(generate()) or new_request_id()
    except BaseException as error:  # noqa: BLE001 - whatever the app's own code raises, its request goes on
        pass_interruption(error)
        for state in asking:
            state.latest.problem("the request_id_generator raised", error)
        return new_request_id()
