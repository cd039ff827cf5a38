"""How a bucket is reached: one set of options for obstore, delta-rs and Polars alike.

What is passed wins over the environment (``AWS_ENDPOINT_URL``, ``AWS_ACCESS_KEY_ID``, ...).
Where neither holds a key, the profile and the roles of the machine are asked through boto3,
which renews what expires: obstore asks it, delta-rs follows the same chain by itself, and
Polars is given the keys of the moment with each scan.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from contracts.errors import CredentialsError, SettingsError, UnsafeStoreError

if TYPE_CHECKING:
    from collections.abc import Mapping

INIT_BACKOFF = timedelta(milliseconds=100)
MAX_BACKOFF = timedelta(seconds=2)

_NAMES = (
    "AWS_ENDPOINT_URL",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_ALLOW_HTTP",
    "AWS_VIRTUAL_HOSTED_STYLE_REQUEST",
    "AWS_SKIP_SIGNATURE",
)
_OTHER_NAMES = {
    "AWS_ENDPOINT": "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3": "AWS_ENDPOINT_URL",
    "AWS_DEFAULT_REGION": "AWS_REGION",
    "ALLOW_HTTP": "AWS_ALLOW_HTTP",
}
_TIMING = ("connect_timeout", "timeout", "retry_timeout", "max_retries")
_UNSAFE = {"AWS_S3_ALLOW_UNSAFE_RENAME": "false", "AWS_CONDITIONAL_PUT": "etag"}
_TRUE = ("1", "true", "yes", "on")
_NO_KEY = (
    "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run where a role is given"
)


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a request may take and how often it is tried again.

    Attributes:
        connect: Until a connection stands.
        request: Until one request is answered.
        retry: From the first try on; after it nothing is tried again.
        retries: The most repetitions of one request.
    """

    connect: timedelta = timedelta(seconds=3)
    request: timedelta = timedelta(seconds=30)
    retry: timedelta = timedelta(seconds=10)
    retries: int = 100


@dataclass(frozen=True, slots=True, repr=False)
class BucketOptions:
    """What is told to each library about one bucket; never printed, for it may hold a secret.

    Attributes:
        shared: Endpoint, region and keys, by the names of the environment.
        session: The boto3 session that gives keys where ``shared`` has none, or None.
        timing: Retries and timeouts.
    """

    shared: Mapping[str, str]
    session: Any
    timing: Timing

    def for_delta(self) -> dict[str, str]:
        """Return the ``storage_options`` of delta-rs.

        With an endpoint of one's own it looks for keys elsewhere only where that is asked.
        """
        elsewhere = {} if self.session is None else {"AWS_FORCE_CREDENTIAL_LOAD": "true"}
        return {
            **self.shared,
            **elsewhere,
            "connect_timeout": _text(self.timing.connect),
            "timeout": _text(self.timing.request),
            "retry_timeout": _text(self.timing.retry),
            "max_retries": str(self.timing.retries),
            "backoff_config.init_backoff": _text(INIT_BACKOFF),
            "backoff_config.max_backoff": _text(MAX_BACKOFF),
        }

    def for_polars(self) -> dict[str, Any]:
        """Return the ``storage_options`` of Polars, for one scan: keys are those of now."""
        return {
            **self.shared,
            **self._keys_of_now(),
            "connect_timeout": _text(self.timing.connect),
            "timeout": _text(self.timing.request),
            "max_retries": self.timing.retries,
            "retry_timeout_ms": _millis(self.timing.retry),
            "retry_init_backoff_ms": _millis(INIT_BACKOFF),
            "retry_max_backoff_ms": _millis(MAX_BACKOFF),
        }

    def _keys_of_now(self) -> dict[str, str]:
        if self.session is None:
            return {}
        keys = self.session.get_credentials().get_frozen_credentials()
        told = {
            "AWS_ACCESS_KEY_ID": keys.access_key,
            "AWS_SECRET_ACCESS_KEY": keys.secret_key,
            "AWS_SESSION_TOKEN": keys.token,
        }
        return {name: value for name, value in told.items() if value}

    def for_obstore(self) -> dict[str, Any]:
        """Return the arguments of ``obstore.store.from_url``, the keys' provider apart."""
        return {
            "config": {k: v for k, v in self.shared.items() if k != "AWS_ALLOW_HTTP"},
            "client_options": {
                "connect_timeout": self.timing.connect,
                "timeout": self.timing.request,
                "allow_http": _is_true(self.shared.get("AWS_ALLOW_HTTP")),
            },
            "retry_config": {
                "max_retries": self.timing.retries,
                "retry_timeout": self.timing.retry,
                "backoff": {"init_backoff": INIT_BACKOFF, "max_backoff": MAX_BACKOFF, "base": 2},
            },
        }


def bucket_options(
    given: Mapping[str, str], environment: Mapping[str, str] | None = None
) -> BucketOptions:
    """Return how a bucket is reached.

    Args:
        given: Options in the spelling of delta-rs; ``connect_timeout``, ``timeout`` and
            ``retry_timeout`` such as ``5s``, and ``max_retries``, are understood as well.
        environment: The process's when None.

    Raises:
        CredentialsError: There is no key anywhere.
        SettingsError: An option cannot be, or half of a key is missing.
        UnsafeStoreError: An option asks for writes that lose commits.
    """
    environment = os.environ if environment is None else environment
    told = {_name(key): str(value) for key, value in given.items()}
    _refuse_unsafe({**{key: environment.get(key, "") for key in _UNSAFE}, **told})
    shared = {key: value for key, value in told.items() if key not in _TIMING}
    for name in _NAMES:
        value = shared.get(name) or _from(environment, name)
        if value:
            shared[name] = value
    if "AWS_ACCESS_KEY_ID" in told:  # a token of the environment belongs to another key
        shared = {k: v for k, v in shared.items() if k != "AWS_SESSION_TOKEN" or k in told}
    _check_endpoint(shared)
    session = None
    if not _has_key(shared):
        session = _session()
        if session.region_name and "AWS_REGION" not in shared:
            shared["AWS_REGION"] = session.region_name
    shared.setdefault("AWS_REGION", "us-east-1")
    return BucketOptions(shared, session, _timing(told))


def _name(key: str) -> str:
    upper = key.upper()
    upper = _OTHER_NAMES.get(upper, upper)
    for name in (upper, f"AWS_{upper}"):
        if name in _NAMES or name in _UNSAFE:
            return name
        if name in _OTHER_NAMES:
            return _OTHER_NAMES[name]
    return key


def _from(environment: Mapping[str, str], name: str) -> str | None:
    """Return what the environment says; the name that is for S3 alone comes first."""
    others = [other for other, meant in _OTHER_NAMES.items() if meant == name]
    if "AWS_ENDPOINT_URL_S3" in others:
        others = ["AWS_ENDPOINT_URL_S3", name, "AWS_ENDPOINT"]
    else:
        others = [name, *others]
    return next((environment[each] for each in others if environment.get(each)), None)


def _refuse_unsafe(told: Mapping[str, str]) -> None:
    for name, safe in _UNSAFE.items():
        if told.get(name, "").lower() not in ("", safe):
            raise UnsafeStoreError(
                f"{name} is {told[name]!r}: commits that were acknowledged would be lost",
                remedy=f"Unset {name}",
                setting=name,
            )


def _check_endpoint(shared: Mapping[str, str]) -> None:
    endpoint = shared.get("AWS_ENDPOINT_URL", "")
    if endpoint and not re.match(r"https?://[^\s/]+", endpoint):
        raise SettingsError(
            f"AWS_ENDPOINT_URL is {endpoint!r}, which is no address",
            remedy="Give one such as https://storage.example.com:9000",
            setting="AWS_ENDPOINT_URL",
        )
    if endpoint.startswith("http://") and not _is_true(shared.get("AWS_ALLOW_HTTP")):
        raise SettingsError(
            "The endpoint of the bucket is http:// and not encrypted",
            remedy="Use https://, or allow it with AWS_ALLOW_HTTP=true",
            setting="AWS_ALLOW_HTTP",
        )


def _has_key(shared: Mapping[str, str]) -> bool:
    if _is_true(shared.get("AWS_SKIP_SIGNATURE")):
        return True
    halves = [name for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY") if shared.get(name)]
    if len(halves) == 1:
        raise CredentialsError(
            f"{halves[0]} is set, but not the other half of the key", remedy=_NO_KEY
        )
    return len(halves) == 2


def _session() -> Any:
    """Return a boto3 session that has keys: of a profile, a container or a machine."""
    import boto3  # type: ignore[import-untyped]
    from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]

    try:
        session = boto3.Session()
        found = session.get_credentials()
        if found is not None:
            found.get_frozen_credentials()
    except BotoCoreError as error:
        raise CredentialsError(f"No credentials for the bucket: {error}", remedy=_NO_KEY) from None
    if found is None:
        raise CredentialsError("There are no credentials for the bucket", remedy=_NO_KEY)
    return session


def _timing(told: Mapping[str, str]) -> Timing:
    usual = Timing()
    return Timing(
        connect=_seconds(told, "connect_timeout", usual.connect),
        request=_seconds(told, "timeout", usual.request),
        retry=_seconds(told, "retry_timeout", usual.retry),
        retries=int(_number(told, "max_retries", usual.retries)),
    )


def _seconds(told: Mapping[str, str], name: str, usual: timedelta) -> timedelta:
    return timedelta(seconds=_number(told, name, usual.total_seconds()))


def _number(told: Mapping[str, str], name: str, usual: float) -> float:
    try:
        return float(told.get(name, str(usual)).removesuffix("s"))
    except ValueError:
        raise SettingsError(
            f"The option {name} is {told[name]!r}",
            remedy="Say it in seconds, such as 5s; max_retries is a number",
            setting=name,
        ) from None


def _millis(value: timedelta) -> int:
    return value // timedelta(milliseconds=1)


def _text(value: timedelta) -> str:
    return f"{_millis(value)}ms"


def _is_true(text: str | None) -> bool:
    return (text or "").lower() in _TRUE
