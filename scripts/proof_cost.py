"""What making and verifying a proof of work costs the front, per form that altcha offers.

Prints µs of CPU each. The figures in api/queue/challenges.py are from here.
"""

import time
from collections.abc import Callable
from typing import Final

import altcha

REPEATS: Final = 500
KEY: Final = b"k" * 32
COUNTER: Final = 50  # Of the second form's pre-solved kind: what is measured does not depend on it.


def microseconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    for _ in range(REPEATS):
        work()
    return (time.process_time() - began) / REPEATS * 1e6


def first_form() -> tuple[float, float]:
    options = altcha.ChallengeOptionsV1(max_number=100, hmac_key=KEY, params={"sale": "s"})
    made = altcha.create_challenge_v1(options)
    solved = altcha.solve_challenge_v1(made.challenge, made.salt, made.algorithm, made.max_number)
    assert solved is not None
    answer = altcha.PayloadV1(
        made.algorithm, made.challenge, solved.number, made.salt, made.signature
    ).to_base64()
    assert altcha.verify_solution_v1(answer, KEY)[0]
    return (
        microseconds(lambda: altcha.create_challenge_v1(options)),
        microseconds(lambda: altcha.verify_solution_v1(answer, KEY)),
    )


def second_form(algorithm: str, cost: int, counter: int | None) -> tuple[float, float]:
    def make() -> altcha.Challenge:
        return altcha.create_challenge(
            algorithm,
            cost,
            counter=counter,
            data={"sale": "s"},
            hmac_secret=KEY,
            hmac_key_secret=KEY if counter is not None else None,
        )

    made = make()
    solved = altcha.solve_challenge(made)
    assert solved is not None
    answer = altcha.Payload(made, solved).to_base64()

    def verify() -> altcha.VerifySolutionResult:
        return altcha.verify_solution(
            answer, KEY, hmac_key_secret=KEY if counter is not None else None
        )

    assert verify().verified
    return microseconds(make), microseconds(verify)


def main() -> None:
    rows = {
        "first form, SHA-256": first_form(),
        "second form, SHA-256": second_form("SHA-256", 1, None),
        "second form, PBKDF2, 5,000 rounds": second_form("PBKDF2/SHA-256", 5000, None),
        "the same, solved before": second_form("PBKDF2/SHA-256", 5000, COUNTER),
    }
    print(f"{'altcha, µs of CPU':<36}{'make':>8}{'verify':>8}")
    for name, (make, verify) in rows.items():
        print(f"{name:<36}{make:>8.0f}{verify:>8.0f}")


if __name__ == "__main__":
    main()
