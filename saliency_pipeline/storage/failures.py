"""Failures of object storage: which ones pass, how long to wait for that, and one line for each of the others."""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.text import one_line

T = TypeVar("T")

ATTEMPTS = 8
"""Attempts of a request that fails for reasons that pass: throttling, 5xx, lost connections, truncated bodies."""

FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
"""Seconds before the second attempt, doubled for each further one up to the second number."""

LONGEST_REQUESTED = 300.0
"""Longest pause in seconds that a server may ask for (Retry-After)."""

REFUSED = -77
"""errno of our own in an OSError: the address is not public."""

_THROTTLING = {"SlowDown", "ServiceUnavailable", "TooManyRequests", "Throttling", "RequestLimitExceeded", "429", "503"}
_PASSING_CODES = {
    *("SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "RequestTimeTooSkewed", "OperationAborted"),
    *("ConditionalRequestConflict", "TooManyRequests", "Throttling", "ThrottlingException", "RequestLimitExceeded"),
    *("429", "500", "502", "503", "504"),
}
# by name: the libraries that define them are optional, and each has its own
_PASSING_CLASSES = {
    *("ClientPayloadError", "ServerDisconnectedError", "ClientOSError", "ClientConnectorError", "ServerTimeoutError"),
    *("EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ConnectionClosedError"),
    *(
        "ResponseStreamingError",
        "IncompleteReadError",
        "HTTPClientError",
        "ServiceRequestError",
        "ServiceResponseError",
    ),
    *("ConnectError", "ConnectTimeout", "ReadError", "ReadTimeout", "RemoteProtocolError", "PoolTimeout"),
}
_PASSING_NUMBERS = {errno.EBUSY, getattr(errno, "EREMOTEIO", errno.EIO), errno.EAGAIN}
_LIBRARIES = (
    "httpx",
    "huggingface_hub",
    "botocore",
    "aiobotocore",
    "aiohttp",
    "gcsfs",
    "google",
    "azure",
    "adlfs",
    "s3fs",
    "fsspec",
    "boto3",
)
_CREDENTIALS = {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound"}


class TruncatedError(OSError):
    """A response ended before all bytes that were asked for had come, or has others."""


class ChangedError(TruncatedError):
    """A response is of another version of the file, perhaps only because a server of several is out of date."""


class StatusError(OSError):
    """A response with a status other than success."""

    def __init__(self, status: int, reason: str, retry_after: float) -> None:
        super().__init__(f"HTTP {status} {reason}".rstrip())
        self.status, self.retry_after = status, retry_after


def retried(place: str, call: Callable[[], T], throttled: Callable[[float], None] | None = None) -> T:
    """Call a function that makes requests; repeat it after failures that pass, with longer and longer pauses.

    Args:
        place: URL for messages.
        call: the function, which may be called several times.
        throttled: called with the seconds of the pause when a server asks for fewer requests.

    Raises:
        FileExistsError, FileNotFoundError, SalpipeError: as `call` does.
        SalpipeError: any other failure of the storage, or one that did not pass.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return call()
        except (FileExistsError, SalpipeError):
            raise
        except Exception as error:
            if isinstance(error, FileNotFoundError) and code_of(error) != "NoSuchBucket":
                raise
            if attempt == ATTEMPTS or not passes(error):
                if (explained := explain(place, error)) is None:
                    raise
                raise explained from error
            # random, so that the workers of a cluster do not all come again at the same time
            wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** (attempt - 1)) * random.uniform(0.5, 1)
            wait = max(wait, min(LONGEST_REQUESTED, _requested_wait(error)))
            if throttled and code_of(error) in _THROTTLING:
                throttled(wait)
        time.sleep(wait)
    raise AssertionError


def passes(error: BaseException) -> bool:
    """Return whether a failure is one of those after which the same request may succeed."""
    if refused(error):
        return False
    for each in _chain(error):
        if isinstance(each, TruncatedError | TimeoutError | ConnectionError):
            return True
        if _code(each) in _PASSING_CODES or type(each).__name__ in _PASSING_CLASSES:
            return True
        if isinstance(each, OSError) and each.errno in _PASSING_NUMBERS:
            return True
    return False


def refused(error: BaseException) -> bool:
    """Return whether a connection was refused since its address is not public."""
    numbers = (getattr(getattr(each, "os_error", each), "errno", None) for each in _chain(error))
    return any(number == REFUSED for number in numbers)


def code_of(error: BaseException) -> str:
    """The storage's code of an error, such as `NoSuchBucket`; empty if there is none."""
    return next((code for each in _chain(error) if (code := _code(each))), "")


def explain(place: str, error: BaseException) -> SalpipeError | None:
    """The failure in one line with its remedy; None for what is no failure of the storage."""
    code, chain = code_of(error), list(_chain(error))
    names = {type(each).__name__ for each in chain}
    reason = one_line(error, 200)
    if names & _CREDENTIALS:
        remedy = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        return SalpipeError(f"{place}: no credentials ({reason}); {remedy}")
    if refused(error):
        return SalpipeError(f"{place}: {reason}; only --allow-private reads from private addresses")
    if isinstance(error, ChangedError):
        return SalpipeError(f"{place}: {reason}; restore it, or choose another output folder")
    if code == "NoSuchBucket":
        return SalpipeError(f"{place}: there is no such bucket; create it, or correct the URL")
    if isinstance(error, FileNotFoundError):
        return SalpipeError(f"{place}: there is no such object; check the URL")
    if isinstance(error, PermissionError):
        return SalpipeError(f"{place}: access denied ({code or reason}); check credentials and permissions")
    if passes(error):
        return SalpipeError(
            f"{place}: does not answer ({code or reason}), {ATTEMPTS} attempts; run the same command again later"
        )
    if isinstance(error, OSError) or any(type(each).__module__.partition(".")[0] in _LIBRARIES for each in chain):
        return SalpipeError(f"{place}: {code + ': ' if code else ''}{reason}; fix this and run the command again")
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and its causes."""
    each: BaseException | None = error
    for _ in range(10):
        if each is None:
            return
        yield each
        each = each.__cause__


def _requested_wait(error: BaseException) -> float:
    """Seconds that a server asks to wait; 0 if it does not."""
    return max((float(getattr(each, "retry_after", 0.0)) for each in _chain(error)), default=0.0)


def _code(error: BaseException) -> str:
    """The code in a response of S3, or the status of one of Google's, Azure's or the Hub's."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return str(response.get("Error", {}).get("Code", ""))
    if isinstance(status := getattr(response, "status_code", None), int):
        return str(status)
    status = getattr(error, "status", None) or getattr(error, "status_code", None) or getattr(error, "code", None)
    return str(status) if isinstance(status, int | str) else ""
