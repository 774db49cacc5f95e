"""``@flask_chest``: which variables are recorded of the requests to a view."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TypeVar, cast, overload
from weakref import WeakSet

from flask import Flask

from flask_chest.capture.tracking import (
    RULES_ATTRIBUTE,
    Computed,
    Rename,
    Rule,
    TrackedNames,
    TrackedVars,
    decorated_views,
)
from flask_chest.errors import ConfigurationError
from flask_chest.extension.chest import FlaskChest, check_generator
from flask_chest.extension.middleware import EXTENSION_KEY, Middleware, current_context
from flask_chest.extension.request import RequestState
from flask_chest.extension.settings import Settings
from flask_chest.extension.state import logger
from flask_chest.protocols import RequestIdGenerator

View = TypeVar("View", bound=Callable[..., object])

_warned_apps: WeakSet[Flask] = WeakSet()


@overload
def flask_chest(view: View, /) -> View: ...


@overload
def flask_chest(
    *,
    tracked_vars: TrackedVars | None = None,
    rename: Rename | None = None,
    computed: Computed | None = None,
    request_id_generator: RequestIdGenerator | None = None,
    chests: Sequence[FlaskChest] | None = None,
) -> Callable[[View], View]: ...


def flask_chest(
    view: View | None = None,
    /,
    *,
    tracked_vars: TrackedVars | None = None,
    rename: Rename | None = None,
    computed: Computed | None = None,
    request_id_generator: RequestIdGenerator | None = None,
    chests: Sequence[FlaskChest] | None = None,
) -> View | Callable[[View], View]:
    """Record chosen variables of ``g`` of each request to the view.

    *tracked_vars* is a list of names for all methods, or maps HTTP methods, or ``"*"``, to such lists. Without it
    every public name is recorded whose value is a JSON scalar or container. HEAD has GET's list unless it has
    its own. A name may be a path (``user.id``, by keys and attributes) or a glob (``cart_*``). *rename* gives
    variables other names; *computed* adds what its functions return when the request ends.
    *request_id_generator* is called without arguments, once for each request. *chests* are those of the app's
    chests that record; the default is all.

    Put it below ``@app.route``; it may also decorate a function that the view calls. The rules of stacked
    decorators are joined, as are those of all functions that ran: a request has one record in each chest. Raises
    `ConfigurationError`, a ``ValueError``, for a key that is not an HTTP method.
    """
    check_generator(request_id_generator)
    _check_chests(chests)
    rule = Rule(
        tracked=TrackedNames.parse(tracked_vars, rename=rename, computed=computed),
        request_id_generator=request_id_generator,
        chests=None if chests is None else tuple(chests),
    )

    def decorate(view: View) -> View:
        return _with_rule(view, rule)

    setattr(decorate, RULES_ATTRIBUTE, (rule,))
    return decorate if view is None else decorate(view)


def _check_chests(chests: object) -> None:
    if chests is None:
        return
    if not isinstance(chests, list | tuple) or not all(isinstance(chest, FlaskChest) for chest in chests):
        raise ConfigurationError("chests must be a list of chests, as in chests=[chest]")


def _with_rule(view: View, rule: Rule) -> View:
    given: object = view
    if isinstance(given, FlaskChest) or not callable(given):
        raise ConfigurationError(
            f"@flask_chest takes keywords, as in tracked_vars=[...] and chests=[...], got a {type(view).__name__}"
        )
    inner_rules: tuple[Rule, ...] = getattr(view, RULES_ATTRIBUTE, ())
    if isinstance(view, type):
        setattr(view, RULES_ATTRIBUTE, (rule, *inner_rules))
        return cast("View", view)
    rules = (rule, *inner_rules)
    wrapper = _async_wrapper(view, rules) if inspect.iscoroutinefunction(view) else _wrapper(view, rules)
    setattr(wrapper, RULES_ATTRIBUTE, rules)
    decorated_views.add(wrapper)
    return cast("View", wrapper)


def _wrapper(view: Callable[..., object], rules: tuple[Rule, ...]) -> Callable[..., object]:
    @functools.wraps(view)
    def recorded(*args: object, **kwargs: object) -> object:
        _hand_over(rules)
        return view(*args, **kwargs)

    return recorded


def _async_wrapper(view: Callable[..., Awaitable[object]], rules: tuple[Rule, ...]) -> Callable[..., object]:
    @functools.wraps(view)
    async def recorded(*args: object, **kwargs: object) -> object:
        _hand_over(rules)
        return await view(*args, **kwargs)

    return recorded


def _hand_over(rules: tuple[Rule, ...]) -> None:
    """Note for the current request that a function with these *rules* runs: its caller may hide them from Flask.

    This is one function, since every request calls it.
    """
    try:
        context = current_context()
        environ = context.request.environ
    except (LookupError, RuntimeError):
        return  # called outside of a request, as any function may be
    middleware: Middleware | None = context.app.extensions.get(EXTENSION_KEY)
    if middleware is None:
        _miss_chest(context.app)
        return
    request_state: RequestState | None = environ.get(middleware.environ_key)
    if request_state is not None and rules[0] not in request_state.ran:
        request_state.ran += rules


def _miss_chest(app: Flask) -> None:
    if app in _warned_apps:
        return
    message = (
        f"a view of the app {app.name!r} is decorated with @flask_chest, but the app has no chest: "
        "nothing is recorded; call chest.init_app(app)"
    )
    if _is_strict(app):
        raise ConfigurationError(message)
    _warned_apps.add(app)
    with suppress(Exception):  # a filter of the app may raise, and this is its request
        logger.warning(message)


def _is_strict(app: Flask) -> bool:
    try:
        return Settings.load(prefix="CHEST", given={}, config=app.config, environ=os.environ).strict
    except ConfigurationError:  # raised where a chest is registered; a view without a chest just works
        return False
