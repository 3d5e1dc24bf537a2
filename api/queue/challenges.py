"""Proofs of work, through `altcha`: signs challenges, and says whether an answer solves one of ours.

Keeps nothing: that a proof counts once is seen to in the step that gives the number.
"""

import base64
import hmac
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Final, Literal, cast

import msgspec
from altcha import v1 as altcha

from api.answers import time_text
from engine.admission.room.store import Proof
from engine.clock import Clock

# altcha's first form, one SHA-256 per try: making one and verifying one cost about 15 µs each, so
# both are done on the loop. Its second form costs four times that at its cheapest; with PBKDF2, which
# would cost solvers more, each challenge or each proof costs us over 1,600 µs: the crowd could then
# load us more than itself. Figures: scripts/proof_cost.py.
ALGORITHM: Final = "SHA-256"
CHALLENGE_SECONDS: Final = 300  # A slow phone needs seconds; a bot may not stock up for hours.
EARLY_SECONDS: Final = 600  # Before tickets are given: spreads the load of fetching and solving.
DIFFICULTY_ASKED: Final = 50_000  # Where the risk service asks and the sale does not: about 0.3 s.
PROOF_CHARACTERS_MAX: Final = 4096  # Base64 of JSON; a buyer's name may be long.

_KEY_FOR: Final = b"doorbuster proof of work"


class ProofFault(StrEnum):
    """Why an answer does not count."""

    MALFORMED = "is no answer to a challenge"
    FORGED = "does not solve a challenge of ours"
    FOREIGN = "is for another buyer or another sale"
    EXPIRED = "has expired; fetch a new challenge"


class ChallengeBody(msgspec.Struct, frozen=True):
    """A challenge as altcha's widgets read it, and until when its answer counts."""

    algorithm: str
    challenge: str
    maxnumber: int  # The widgets' word,
    maxNumber: int  # noqa: N815  # and that of altcha's servers.
    salt: str
    signature: str
    required: bool
    expires_at: str


class _Answer(msgspec.Struct, frozen=True):
    """What a solver sends, as base64 of JSON. Solvers add fields of their own."""

    algorithm: Literal["SHA-256"]
    challenge: str
    number: Annotated[int, msgspec.Meta(ge=0, le=2**53)]
    salt: str
    signature: str


_decoder: Final = msgspec.json.Decoder(_Answer)


class Challenges:
    """Makes challenges and verifies answers; all with one secret agree, and remember nothing."""

    def __init__(self, secret: str, clock: Clock) -> None:
        self._key = hmac.digest(secret.encode(), _KEY_FOR, "sha256")
        self._clock = clock

    def make(
        self, sale_id: str, user_id: str, *, difficulty: int, counts_from_ms: int
    ) -> ChallengeBody:
        """A challenge for one buyer of one sale: half of `difficulty` tries on average.

        Its answer counts for CHALLENGE_SECONDS from now, or from `counts_from_ms` if that is later.
        """
        from_ms = max(self._clock.now_ms(), counts_from_ms)
        expires_s = from_ms // 1000 + CHALLENGE_SECONDS
        made = altcha.create_challenge(
            altcha.ChallengeOptions(
                algorithm=ALGORITHM,
                max_number=difficulty or DIFFICULTY_ASKED,
                hmac_key=self._key,
                expires=datetime.fromtimestamp(expires_s, UTC),
                params={"sale": sale_id, "user": user_id},
            )
        )
        return ChallengeBody(
            algorithm=made.algorithm,
            challenge=made.challenge,
            maxnumber=made.max_number,
            maxNumber=made.max_number,
            salt=made.salt,
            signature=made.signature,
            required=difficulty > 0,
            expires_at=time_text(expires_s * 1000),
        )

    def verify(self, text: str, sale_id: str, user_id: str) -> Proof | ProofFault:
        """Whether this is this buyer's answer to a challenge of this sale, and still counts."""
        try:
            answer = _decoder.decode(base64.b64decode(text, validate=True))
        except (ValueError, RecursionError, msgspec.DecodeError):
            return ProofFault.MALFORMED
        payload = cast("altcha.PayloadType", msgspec.structs.asdict(answer))
        # Its own check of the expiry asks the machine's clock; ours comes below.
        if not altcha.verify_solution(payload, self._key, check_expires=False)[0]:
            return ProofFault.FORGED
        return self._judge(answer.challenge, altcha.extract_params(payload), sale_id, user_id)

    def _judge(
        self, mark: str, signed: dict[str, list[str]], sale_id: str, user_id: str
    ) -> Proof | ProofFault:
        if signed.get("sale") != [sale_id] or signed.get("user") != [user_id]:
            return ProofFault.FOREIGN
        expires_at_ms = int(signed["expires"][0]) * 1000  # Signed by us: it is there.
        if expires_at_ms <= self._clock.now_ms():
            return ProofFault.EXPIRED
        return Proof(mark, expires_at_ms)
