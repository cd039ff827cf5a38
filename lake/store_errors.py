"""What went wrong with a store, by the one tree of errors, without a word of a secret.

Obstore, delta-rs and Polars pass on what the operating system or the bucket answered, each
in a text of its own; the answer's code is found in it. Answers about keys are never quoted,
since some repeat the token that they refuse.
"""

from __future__ import annotations

import errno
import os
import re
from typing import TYPE_CHECKING, NoReturn

from contracts.errors import (
    CredentialsError,
    LakeNotFoundError,
    SettingsError,
    StoreUnavailableError,
)

if TYPE_CHECKING:
    from contracts.errors import TidemarkError

_REMEDIES = {
    errno.ENOSPC: "Free some space and run again; nothing half-written is visible",
    errno.EDQUOT: "Raise the quota and run again; nothing half-written is visible",
    errno.EROFS: "Mount it writable, or read with a lake that is elsewhere",
    errno.EACCES: "Give this user the right to write there",
    errno.EPERM: "Give this user the right to write there",
}
_SIGNS = {
    "no space left": errno.ENOSPC,
    "quota exceeded": errno.EDQUOT,
    "read-only file system": errno.EROFS,
    "permission denied": errno.EACCES,
    "operation not permitted": errno.EPERM,
}
_DRAWN = re.compile(r"\x1b\[\d*m|↳")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_DENIED = re.compile(r"status code: (?:401|403)")
_REFUSED = re.compile(r"status code: (?:400|401|403|301)")
_SECRET = re.compile(
    r"(//)[^/@\s]+@|((?:signature|credential|token|secret\w*|x-amz-[\w-]+)=)[^\s&,\"')]+",
    re.IGNORECASE,
)
_NEW_KEY = "Renew the credentials and run again; what was committed stays"
_OTHER_KEY = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to a key that this store knows"
_REFUSALS = {
    "ExpiredToken": ("the credentials have expired", _NEW_KEY),
    "ExpiredTokenException": ("the credentials have expired", _NEW_KEY),
    "RequestExpired": ("the credentials have expired", _NEW_KEY),
    "TokenRefreshRequired": ("the credentials have expired", _NEW_KEY),
    "InvalidToken": ("the session token is not valid", _OTHER_KEY),
    "InvalidAccessKeyId": ("the store does not know the access key", _OTHER_KEY),
    "SignatureDoesNotMatch": ("the secret does not belong to the access key", _OTHER_KEY),
    "RequestTimeTooSkewed": (
        "the clocks of this machine and of the store differ too much",
        "Set the clock of this machine",
    ),
    "AccessDenied": (
        "the store denies it to these credentials",
        "Give them the rights of infra/aws/policy.json, or use others",
    ),
}
_NO_KEYS = (
    "credentialsnotloaded",
    "no credentials",
    "failed to load credentials",
    "the credential provider was not enabled",
    "instance metadata",
    "instance credentials",
)
_ELSEWHERE = (
    "PermanentRedirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
)


def store_error(doing: str, error: Exception) -> TidemarkError:
    """Return the named error for a failure of the store.

    Args:
        doing: What was tried, for instance ``read s3://bucket/lake/lake.json``.
        error: What the library raised.
    """
    text = str(error)
    found = _CODE.search(text)
    code = found.group(1) if found else _code_of(error, text)
    if code == "NoSuchBucket":
        return LakeNotFoundError(
            f"Cannot {doing}: there is no such bucket",
            remedy="Create it (infra/aws/README.md), or name another root",
            doing=doing,
        )
    if code in _ELSEWHERE:
        return SettingsError(
            f"Cannot {doing}: the bucket is in another region",
            remedy="Set AWS_REGION to the bucket's region",
            doing=doing,
        )
    if code in _REFUSALS:
        why, remedy = _REFUSALS[code]
        return CredentialsError(f"Cannot {doing}: {why}", remedy=remedy, doing=doing)
    return _unavailable(doing, error, text)


def raise_store_error(doing: str, error: Exception, **context: str) -> NoReturn:
    """Raise the named error for a failure of the store, with more context.

    An answer about credentials is no cause that may be shown: it can repeat them.
    """
    named = store_error(doing, error)
    named.context.update(context)
    raise named from None if isinstance(named, CredentialsError) else error


def is_missing_bucket(error: Exception) -> bool:
    """Tell whether an object is missing because its whole bucket is."""
    return "NoSuchBucket" in str(error)


def is_refusal(error: Exception) -> bool:
    """Tell whether a store answered and refused, other than for want of the object."""
    found = _REFUSED.search(str(error))
    return found is not None and not isinstance(error, FileNotFoundError)


def _code_of(error: Exception, text: str) -> str:
    """Return the code of an answer without a body, by what else is told of it."""
    kind, folded = type(error).__name__, text.casefold()
    if "os error" in folded or isinstance(error, PermissionError):
        return ""
    if kind in ("PermissionDeniedError", "UnauthenticatedError"):
        return "AccessDenied"
    if any(sign in folded for sign in _NO_KEYS):
        return "AccessDenied"
    if "redirect without location" in folded:
        return "PermanentRedirect"
    return "AccessDenied" if _DENIED.search(text) else ""


def _unavailable(doing: str, error: Exception, text: str) -> StoreUnavailableError:
    number = getattr(error, "errno", None)
    if number is None:
        folded = text.casefold()
        number = next((code for sign, code in _SIGNS.items() if sign in folded), None)
    if number:
        why = os.strerror(number)
    else:
        why = _without_secrets(_one_line(text) or type(error).__name__)[:300]
    return StoreUnavailableError(
        f"Cannot {doing}: {why}",
        remedy=_REMEDIES.get(number or 0, "Check that the store is there and reachable"),
        doing=doing,
    )


def _one_line(text: str) -> str:
    """Return the chain of causes, which some libraries draw as a tree in colours."""
    lines = (
        _DRAWN.sub("", line).strip()
        for line in text.split("Debug source:", maxsplit=1)[0].splitlines()
    )
    return ": ".join(line for line in lines if line)


def _without_secrets(text: str) -> str:
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        secret = os.environ.get(name)
        if secret:
            text = text.replace(secret, "***")
    return _SECRET.sub(lambda m: f"{m.group(1) or m.group(2)}***", text)
