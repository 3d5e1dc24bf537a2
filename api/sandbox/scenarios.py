"""What can become of a sandbox charge, by `options.scenario`. Pure: times in, times out."""

from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

from engine.payment.provider import ChargeStatus

SECONDS_MAX: Final = 86_400.0
DELAY_SECONDS: Final = 1.0  # Where `options.seconds` does not say.
DUPLICATES: Final = 3
PENDING_MS: Final = 200  # How late the pending webhook of `reorder` is.


class Scenario(StrEnum):
    """How a charge and its webhooks behave."""

    SUCCEED = "succeed"  # Captured at once; one webhook.
    FAIL = "fail"  # Refused at once; one webhook.
    DELAY = "delay"  # Captured only after `seconds`; the webhook then.
    LATE = "late"  # Captured at once, but answered as pending and told only after `seconds`.
    SILENT = "silent"  # Captured, answered as pending, never told: a query finds it.
    DUPLICATE = "duplicate"  # The webhook comes three times.
    REORDER = "reorder"  # The pending webhook comes after the captured one.


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The options of a sandbox payment."""

    scenario: Scenario = Scenario.SUCCEED
    seconds: float = DELAY_SECONDS


class Notice(NamedTuple):
    """A webhook to come. Notices of one number are deliveries of one event."""

    number: int
    status: ChargeStatus
    after_ms: int


class Plan(NamedTuple):
    """A charge's fate. `told` is what the answer to its creation says."""

    outcome: ChargeStatus
    settles_after_ms: int
    told: ChargeStatus
    notices: tuple[Notice, ...]


def plan(options: Options) -> Plan:
    """The fate that the options ask for."""
    wait_ms = int(min(max(options.seconds, 0.0), SECONDS_MAX) * 1000)
    captured, failed, pending = ChargeStatus.CAPTURED, ChargeStatus.FAILED, ChargeStatus.PENDING
    at_once, later = Notice(0, captured, 0), Notice(0, captured, wait_ms)
    plans = {
        Scenario.SUCCEED: Plan(captured, 0, captured, (at_once,)),
        Scenario.FAIL: Plan(failed, 0, failed, (Notice(0, failed, 0),)),
        Scenario.DELAY: Plan(captured, wait_ms, pending, (later,)),
        Scenario.LATE: Plan(captured, 0, pending, (later,)),
        Scenario.SILENT: Plan(captured, 0, pending, ()),
        Scenario.DUPLICATE: Plan(captured, 0, pending, (at_once,) * DUPLICATES),
        Scenario.REORDER: Plan(captured, 0, pending, (at_once, Notice(1, pending, PENDING_MS))),
    }
    return plans[options.scenario]
