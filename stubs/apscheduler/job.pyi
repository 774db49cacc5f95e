from collections.abc import Callable
from typing import Self

from apscheduler.schedulers.base import BaseScheduler

class Job:
    id: str
    func: Callable[..., object]
    def __init__(self, scheduler: BaseScheduler, id: str | None = None, **kwargs: object) -> None: ...
    def modify(self, **changes: object) -> Self: ...
