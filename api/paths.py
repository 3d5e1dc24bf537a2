"""Says what the parts of a path look like. What looks otherwise names nothing: no need to ask."""

import re
from collections.abc import Mapping
from typing import Final

from api.problems import Code, Refusal
from engine.model import SALE_ID

_WORD: Final = re.compile(r"[!-~]{1,128}")

_SALE: Final = "sale"


def part_pattern(name: str) -> str:
    """What the part of this name looks like, as a regular expression."""
    return SALE_ID.pattern if name == _SALE else _WORD.pattern


def check_path(parts: Mapping[str, str]) -> None:
    """Lets the named parts of a path through, or raises Refusal: 404."""
    for name, text in parts.items():
        if name == _SALE:
            if not SALE_ID.fullmatch(text):
                raise Refusal(Code.UNKNOWN_SALE)
        elif not _WORD.fullmatch(text):
            raise Refusal(Code.NOT_FOUND)
