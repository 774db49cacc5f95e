class ApiException(Exception):
    # 0 where there was no answer, as after a failed TLS handshake.
    status: int
    reason: str
    # The driver decodes it as UTF-8 before it raises.
    body: str | None
    def __init__(
        self, status: int | None = None, reason: str | None = None, http_resp: object = None
    ) -> None: ...
