from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, tzinfo

from apscheduler.executors.base import BaseExecutor
from apscheduler.job import Job
from apscheduler.triggers.base import BaseTrigger

class BaseScheduler(metaclass=ABCMeta):
    # The options that `configure` reads and flask_chest gives.
    def __init__(
        self,
        gconfig: Mapping[str, object] = {},
        *,
        daemon: bool = ...,
        timezone: tzinfo = ...,
        executors: Mapping[str, BaseExecutor] = ...,
        **options: object,
    ) -> None: ...
    @abstractmethod
    def shutdown(self, wait: bool = True) -> None: ...
    def add_job(
        self,
        func: Callable[..., object],
        trigger: BaseTrigger | None = None,
        args: Iterable[object] | None = None,
        kwargs: Mapping[str, object] | None = None,
        id: str | None = None,
        name: str | None = None,
        misfire_grace_time: int | None = ...,
        coalesce: bool = ...,
        max_instances: int = ...,
        next_run_time: datetime | None = ...,
        jobstore: str = "default",
        executor: str = "default",
        replace_existing: bool = False,
        **trigger_args: object,
    ) -> Job: ...
