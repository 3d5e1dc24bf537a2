"""Reads what an operator wants changed of a waiting room: every problem at once, by field.

For HTTP and the command line alike. Leaves making the change to the engine.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from api.bodies import field_error
from engine.admission.room.settings import RoomChanges
from engine.config import Settings
from engine.errors import Invalid, InvalidDocument

FIELD_CHARACTERS_MAX = 64  # Of a name that is no field's, in a complaint.


def read_changes(values: Mapping[str, Any], settings: Settings) -> RoomChanges:
    """The changes, or InvalidDocument. Fields that are not there stay as they are."""
    problems: list[Invalid] = []
    for name, value in values.items():
        try:
            msgspec.convert({name: value}, RoomChanges)
        except msgspec.ValidationError as error:
            complaint = field_error(str(error))
            problems.append(Invalid(complaint.field[:FIELD_CHARACTERS_MAX], complaint.problem))
    if values.get("captcha") is True and settings.captcha_url is None:
        problems.append(Invalid("captcha", "needs DOORBUSTER_CAPTCHA_URL, which is not set"))
    if problems:
        raise InvalidDocument(problems)
    return msgspec.convert(dict(values), RoomChanges)
