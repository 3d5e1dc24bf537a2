"""The failures the engine raises. A refusal is not here: refusals are values (see `model`)."""


class DoorbusterError(Exception):
    """Anything the engine reports in one sentence to a person."""


class ConfigError(DoorbusterError):
    """Settings are wrong. Carries every problem found, one per line."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Unavailable(DoorbusterError):
    """A server the engine needs did not answer. The outcome of the call is unknown."""


class RedisUnavailable(Unavailable):
    """Redis did not answer, or answered that it cannot serve."""


class StoreUnavailable(Unavailable):
    """Postgres did not answer, or answered that it cannot serve."""


class ProviderUnavailable(Unavailable):
    """A payment provider did not answer. The payment may or may not have happened."""


class CircuitOpen(Unavailable):
    """A server failed so often that it is not asked now. Nothing was done."""


class Overloaded(DoorbusterError):
    """A bounded queue is full. Nothing was done; come back later."""


class StaleEpoch(DoorbusterError):
    """The stock is fenced, or of another generation than the caller believes."""


class UnknownSale(DoorbusterError):
    """No sale of that name."""


class UnknownReservation(DoorbusterError):
    """This buyer has no such reservation or order."""


class Invalid(DoorbusterError):
    """A document or request breaks a rule. `field` says where, as in `items[3].sku`."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}" if field else problem)
        self.field = field
        self.problem = problem


class InvalidDocument(DoorbusterError):
    """A document breaks rules. Carries every problem found, one per line."""

    def __init__(self, problems: list[Invalid]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class Conflict(DoorbusterError):
    """The request is well formed but the present state does not allow it."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
