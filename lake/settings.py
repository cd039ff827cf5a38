"""Settings: read once, at an entry point, and passed down."""

from __future__ import annotations

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from contracts.errors import SettingsError


class Settings(BaseSettings):
    """What the environment says; each name is ``LAKE_`` and the field in capitals."""

    model_config = SettingsConfigDict(env_prefix="LAKE_", frozen=True, extra="ignore")

    root: str = Field(
        default="./lakehouse", description="The lake: a folder or s3://bucket/prefix."
    )
    fsync: bool = Field(
        default=True, description="Force files of a local lake to disk before they count."
    )
    grace_seconds: float = Field(
        default=2.0,
        ge=0,
        description="A bar counts as closed this long after its close, venue's time.",
    )
    pending_minutes: float = Field(
        default=10.0, ge=0, description="A bar that the venue has not given is pending for so long."
    )
    recheck_hours: float = Field(
        default=48.0,
        ge=0,
        description="Missing spans younger than this are asked again by every run.",
    )
    instruments_hours: float = Field(
        default=24.0, ge=0, description="The instrument list is asked again when older than this."
    )
    batch_pages: int = Field(default=128, ge=1, description="Pages that are landed in one commit.")
    concurrency: int = Field(default=8, ge=1, description="Requests under way at once, per venue.")
    breaker_share: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="Share of bad rows above which a batch is not published.",
    )
    breaker_rows: int = Field(
        default=20,
        ge=1,
        description="Number of bad rows below which a batch is published all the same.",
    )
    vacuum_grace_hours: float = Field(
        default=1.0,
        ge=1,
        le=87_600,
        description="Maintenance deletes no file that is younger, or was in use more recently.",
    )
    bronze_days: int | None = Field(
        default=None,
        ge=14,
        description="Days for which the venues' answers are kept; for ever when unset.",
    )


def read_settings() -> Settings:
    """Return what the environment says.

    Raises:
        SettingsError: A variable holds what it cannot hold.
    """
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = "LAKE_" + "_".join(map(str, first["loc"])).upper()
        raise SettingsError(
            f"{name} is {first['input']!r}: {first['msg'].lower()}",
            remedy="Set it right or unset it; docs/cli.md lists the settings",
            setting=name,
        ) from None
