"""What goes wrong with S3: which errors pass, and what to do about those that last."""

from __future__ import annotations

from vitaclip.errors import VitaClipError

# Of AWS's documented errors, those that say "later" with a status that otherwise means "never".
_TEMPORARY_CODES = {
    *(
        "ConditionalRequestConflict",
        "IncompleteBody",
        "OperationAborted",
        "RequestTimeout",
        "SlowDown",
    ),
    *("Throttling", "ThrottlingException", "TooManyRequestsException"),
}
_ADVICE_BY_CODE = {
    "NotImplemented": "; the server must know conditional writes ('If-None-Match' on PUT)",
    "NoSuchBucket": "; create the bucket, or name another",
    "403": "; check the credentials (AWS_ACCESS_KEY_ID and its secret, or AWS_PROFILE) and their "
    "rights",
    "AccessDenied": "; check the credentials' rights on this bucket",
    "InvalidAccessKeyId": "; check AWS_ACCESS_KEY_ID, or AWS_PROFILE, and S3_ENDPOINT_URL",
    "SignatureDoesNotMatch": "; check AWS_SECRET_ACCESS_KEY",
}


class S3Error(VitaClipError):
    """The server refused or lost a request, after all retries."""


class MissingObjectError(S3Error):
    """There is no such object."""


class ObjectExistsError(S3Error):
    """An object that is written once exists already."""


def explained(place: str, key: str, error: Exception) -> S3Error:
    """One of boto3's errors, in words that name the object and say what to do."""
    code = _error_code(error)
    if code in ("NoSuchKey", "404"):
        return MissingObjectError(f"{place}: there is no {key}")
    if code in ("PreconditionFailed", "412"):
        return ObjectExistsError(f"{place}: {key} exists already")
    return S3Error(f"{place}: {key}: {error}{_ADVICE_BY_CODE.get(code, '')}")


def boto3_errors() -> tuple[type[Exception], ...]:
    """What boto3 raises; older versions let errors of urllib3 through."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError
    from urllib3.exceptions import HTTPError

    return BotoCoreError, Boto3Error, ClientError, HTTPError


def may_pass(error: Exception) -> bool:
    """Whether the same request may succeed later: connections, bodies that break off, an overloaded
    server.
    """
    from boto3.exceptions import RetriesExceededError
    from botocore import exceptions as botocore
    from urllib3.exceptions import ProtocolError

    cause = _cause(error)
    if isinstance(cause, botocore.ClientError):
        status = cause.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return status in (429, 500, 502, 503, 504) or _error_code(cause) in _TEMPORARY_CODES
    return isinstance(
        cause,
        botocore.ConnectionError
        | botocore.FlexibleChecksumError
        | botocore.HTTPClientError
        | botocore.IncompleteReadError
        | ProtocolError
        | RetriesExceededError,
    )


def _error_code(error: BaseException) -> str:
    response = getattr(_cause(error), "response", {})
    return str(response.get("Error", {}).get("Code", ""))


def _cause(error: BaseException) -> BaseException:
    """boto3 words a failed upload anew and keeps the server's answer behind it."""
    from boto3.exceptions import S3UploadFailedError

    return error.__context__ or error if isinstance(error, S3UploadFailedError) else error
