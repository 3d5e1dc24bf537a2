"""Lays out the log lines of the processes that serve. Their output goes to a file of the supervisor's."""

import logging


def log_to_stderr() -> None:
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
    )
