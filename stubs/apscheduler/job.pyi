from collections.abc import Callable
from typing import Self

from apscheduler.schedulers.base import BaseScheduler
from apscheduler.triggers.base import BaseTrigger

class Job:
    id: str
    func: Callable[..., object]
    trigger: BaseTrigger
    def __init__(self, scheduler: BaseScheduler, id: str | None = None, **kwargs: object) -> None: ...
    def modify(self, **changes: object) -> Self: ...
