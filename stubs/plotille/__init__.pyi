from collections.abc import Sequence
from datetime import datetime, tzinfo
from typing import Literal

class Figure:
    width: int
    height: int
    with_colors: bool
    color_mode: Literal["names", "byte", "rgb"]
    x_label: str
    y_label: str

    def __init__(self) -> None: ...
    def set_x_display_timezone(self, tz: tzinfo | None) -> None: ...
    def set_y_limits(self, min_: float | None = None, max_: float | None = None) -> None: ...
    def plot(
        self,
        X: Sequence[datetime],
        Y: Sequence[float],
        lc: str | None = None,
        interp: Literal["linear"] | None = "linear",
        label: str | None = None,
    ) -> None: ...
    def show(self, legend: bool = False) -> str: ...
