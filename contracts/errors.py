"""Every error that leaves the house, in one tree.

::

    TidemarkError
    ├── RequestError                  the caller asked wrongly            exit 2, HTTP 400
    │   ├── InvalidSpanError          start is not before end
    │   ├── InvalidTimeError          not a time, or a naive datetime
    │   ├── InvalidNameError          not an instrument in any known form
    │   ├── UnknownVenueError         no such venue                       HTTP 404
    │   ├── UnknownSymbolError        the venue lists no such symbol      HTTP 404
    │   ├── UnknownTimeframeError     no such timeframe                   HTTP 404
    │   ├── UnknownStreamError        nothing was ever asked of it here   HTTP 404
    │   ├── UnknownTableError         no such table                       HTTP 404
    │   ├── TableNotPinnedError       the snapshot does not pin it        HTTP 404
    │   ├── UnknownSnapshotError      no such snapshot                    HTTP 404
    │   ├── AmbiguousSnapshotError    an abbreviation of several ids
    │   ├── SnapshotInUseError        a lock names it                     HTTP 409
    │   ├── LockedRunError            bound to a lock, asked for other    HTTP 409
    │   ├── BeforeFirstKnowledgeError known_at precedes all knowledge
    │   └── TapeError                 a tape that cannot be replayed
    ├── SettingsError                 a setting is wrong                  exit 2
    │   ├── LakeNotFoundError         no lake at this root                HTTP 404
    │   ├── LakeOriginError           recorded and live data would mix
    │   ├── LakeFormatError           written by a newer Tidemark
    │   └── UnsafeStoreError          the store loses commits
    ├── VenueError                    the venue did not answer well       exit 4, HTTP 502
    │   ├── VenueUnavailableError     down, unreachable, hanging          retryable
    │   ├── RateLimitedError          told to wait                        retryable
    │   ├── VenueRejectedError        refused the request
    │   ├── UnsupportedByVenueError   does not offer this
    │   └── PayloadError              answered in a shape we do not know  retryable
    ├── DataError                     the data broke a promise            exit 3, HTTP 409
    │   ├── ContractError             a frame breaks its table's contract
    │   ├── AuditError                a circuit breaker tripped
    │   ├── QualityError              a strict read met unsound spans
    │   ├── ClockRegressionError      the clock is behind the table
    │   └── LockDriftError            a lake.lock and what is there differ
    ├── StorageError                  the store failed                    exit 5, HTTP 503
    │   ├── CommitConflictError       lost a race for a commit            retryable
    │   ├── ChecksumError             bytes are not what was written
    │   ├── SnapshotIncompleteError   a file of a snapshot is missing
    │   ├── TornLogError              a Delta log was cut short
    │   ├── CredentialsError          none, wrong or expired              HTTP 401
    │   └── StoreUnavailableError     full, read-only or unreachable
    └── InvariantError                our bug; never caught               exit 70

Each error has a stable ``code``, says whether a retry can help (``retryable``),
keeps its context as attributes, names the remedy, and survives pickling.
"""

from __future__ import annotations

from typing import Any, ClassVar


class TidemarkError(Exception):
    """Root of all errors that Tidemark raises on purpose.

    Args:
        message: What is wrong, in one sentence without a final full stop.
        remedy: What the reader can do about it, one sentence.
        context: Facts about the failure; each becomes an attribute.
    """

    code: ClassVar[str] = "tidemark"
    retryable: ClassVar[bool] = False
    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, remedy: str = "", **context: Any) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.context = context

    def __getattr__(self, name: str) -> Any:
        context = self.__dict__.get("context", {})
        if name in context:
            return context[name]
        msg = f"{type(self).__name__!r} object has no attribute {name!r}"
        raise AttributeError(msg)

    def __str__(self) -> str:
        return f"{self.message}. {self.remedy}" if self.remedy else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.remedy, self.context)


def _rebuild(
    kind: type[TidemarkError], message: str, remedy: str, context: dict[str, Any]
) -> TidemarkError:
    return kind(message, remedy=remedy, **context)


class RequestError(TidemarkError):
    """The caller asked wrongly."""

    code = "request"
    exit_code = 2
    http_status = 400


class InvalidSpanError(RequestError):
    """Start is not before end."""

    code = "request.invalid_span"


class InvalidTimeError(RequestError):
    """The value is not a time, or it is a datetime without a time zone."""

    code = "request.invalid_time"


class InvalidNameError(RequestError):
    """The text names no instrument in any form we know."""

    code = "request.invalid_name"


class UnknownVenueError(RequestError):
    """No venue of that name."""

    code = "request.unknown_venue"
    http_status = 404


class UnknownSymbolError(RequestError):
    """The venue lists no such symbol."""

    code = "request.unknown_symbol"
    http_status = 404


class UnknownTimeframeError(RequestError):
    """No timeframe of that name."""

    code = "request.unknown_timeframe"
    http_status = 404


class UnknownStreamError(RequestError):
    """Nothing was ever asked of this stream in this lake."""

    code = "request.unknown_stream"
    http_status = 404


class UnknownTableError(RequestError):
    """No table of that name."""

    code = "request.unknown_table"
    http_status = 404


class TableNotPinnedError(RequestError):
    """The snapshot does not pin this table, so it cannot say which rows it has."""

    code = "request.table_not_pinned"
    http_status = 404


class AmbiguousSnapshotError(RequestError):
    """An abbreviation that stands for several snapshots; ``matches`` lists them."""

    code = "request.ambiguous_snapshot"


class SnapshotInUseError(RequestError):
    """A snapshot that a lock names cannot be given up; ``locks`` lists who holds it."""

    code = "request.snapshot_in_use"
    http_status = 409


class LockedRunError(RequestError):
    """The run is bound to a lake.lock, and something else was to be opened."""

    code = "request.locked_run"
    http_status = 409


class UnknownSnapshotError(RequestError):
    """No snapshot of that id."""

    code = "request.unknown_snapshot"
    http_status = 404


class BeforeFirstKnowledgeError(RequestError):
    """``known_at`` precedes the first knowledge of the stream; ``first_known`` names it."""

    code = "request.before_first_knowledge"


class TapeError(RequestError):
    """A tape that cannot be replayed: a missing file or column, an unknown form."""

    code = "request.tape"


class SettingsError(TidemarkError):
    """A setting is missing or wrong."""

    code = "settings"
    exit_code = 2


class LakeNotFoundError(SettingsError):
    """There is no lake at this root."""

    code = "settings.lake_not_found"
    http_status = 404


class LakeOriginError(SettingsError):
    """The lake holds data of another origin: recorded and live data would mix."""

    code = "settings.lake_origin"


class UnsafeStoreError(SettingsError):
    """The store does not keep conditional writes apart: acknowledged commits would be lost."""

    code = "settings.unsafe_store"


class LakeFormatError(SettingsError):
    """The lake was written in a format that this version does not know."""

    code = "settings.lake_format"


class VenueError(TidemarkError):
    """The venue did not answer as it should."""

    code = "venue"
    exit_code = 4
    http_status = 502


class VenueUnavailableError(VenueError):
    """The venue is down, unreachable, hanging or under maintenance."""

    code = "venue.unavailable"
    retryable = True


class RateLimitedError(VenueError):
    """The venue told us to wait; ``retry_after_seconds`` says how long."""

    code = "venue.rate_limited"
    retryable = True


class VenueRejectedError(VenueError):
    """The venue understood the request and refused it."""

    code = "venue.rejected"


class UnsupportedByVenueError(VenueError):
    """The venue does not offer this."""

    code = "venue.unsupported"


class PayloadError(VenueError):
    """The venue answered in a shape we do not know; the raw response is kept."""

    code = "venue.payload"
    retryable = True


class DataError(TidemarkError):
    """The data broke a promise."""

    code = "data"
    exit_code = 3
    http_status = 409


class ContractError(DataError):
    """A frame breaks the contract of its table."""

    code = "data.contract"


class AuditError(DataError):
    """A circuit breaker tripped: the batch was not published."""

    code = "data.audit"


class QualityError(DataError):
    """A strict read met spans that are not sound."""

    code = "data.quality"


class LockDriftError(DataError):
    """What a lake.lock pins and what is there differ; ``changes`` lists how."""

    code = "data.lock_drift"


class ClockRegressionError(DataError):
    """The clock is behind the newest knowledge of the table."""

    code = "data.clock_regression"


class StorageError(TidemarkError):
    """The store failed."""

    code = "storage"
    exit_code = 5
    http_status = 503


class CommitConflictError(StorageError):
    """Another writer won the race for this commit, again and again."""

    code = "storage.commit_conflict"
    retryable = True


class ChecksumError(StorageError):
    """Bytes in the store are not the bytes that were written."""

    code = "storage.checksum"


class SnapshotIncompleteError(StorageError):
    """A file of the snapshot is missing."""

    code = "storage.snapshot_incomplete"


class TornLogError(StorageError):
    """A Delta log was cut short, by a power loss for instance."""

    code = "storage.torn_log"


class CredentialsError(StorageError):
    """The store refuses us: no credentials, wrong ones, or expired ones."""

    code = "storage.credentials"
    http_status = 401


class StoreUnavailableError(StorageError):
    """The store is full, read-only or unreachable."""

    code = "storage.unavailable"
    retryable = True


class InvariantError(TidemarkError):
    """Something that cannot be happened: a bug of ours. Never caught."""

    code = "invariant"
    exit_code = 70


def all_errors() -> list[type[TidemarkError]]:
    """Return every class of the tree, root first, for documentation and tests."""
    found: list[type[TidemarkError]] = []
    queue: list[type[TidemarkError]] = [TidemarkError]
    while queue:
        kind = queue.pop(0)
        found.append(kind)
        queue = kind.__subclasses__() + queue
    return found
