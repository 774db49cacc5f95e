from typing import Self

class InfluxDBClient:
    # Passed on to the services and not looked into.
    api_client: object
    def __init__(
        self,
        url: str,
        token: str | None = None,
        debug: bool | None = None,
        timeout: float = 10_000,
        enable_gzip: bool = False,
        org: str | None = None,
        default_tags: dict[str, str] | None = None,
        *,
        verify_ssl: bool = True,
        # False: an answer is final. urllib3's Retry is left out: it is not used.
        retries: bool = False,
    ) -> None: ...
    def close(self) -> None: ...

class Point:
    def __init__(self, measurement_name: str) -> None: ...
    def tag(self, key: str, value: str) -> Self: ...
    def field(self, field: str, value: bool | float | str) -> Self: ...
    def time(self, time: int, write_precision: str = "ns") -> Self: ...
    def to_line_protocol(self, precision: str | None = None) -> str: ...

class WriteService:
    def __init__(self, api_client: object = None) -> None: ...
    # The result's middle is the status of the answer.
    def post_write_with_http_info(
        self,
        org: str,
        bucket: str,
        body: bytes,
        *,
        content_type: str = ...,
        precision: str = ...,
        _request_timeout: float = ...,
    ) -> tuple[None, int, object]: ...
