"""What can go wrong between the user and a running cluster, told in words that say what to do."""

from __future__ import annotations


class ClusterError(Exception):
    """A cluster could not be started, stopped or asked; the message is written for the user.

    hint says what to do about it, on a line of its own; empty when the message already does.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message}\n{hint}" if hint else message)
        self.message = message
        self.hint = hint


class PreflightError(ClusterError):
    """Something the machine lacks or has already in use; problems holds each of them, all found at once."""

    def __init__(self, problems: tuple[ClusterError, ...]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class NotRunningError(ClusterError):
    """The cluster asked for is not up."""


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What to tell of several errors: the first ClusterError, or the first at all."""
    matching = group.subgroup(ClusterError) or group
    error: BaseException = matching
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
