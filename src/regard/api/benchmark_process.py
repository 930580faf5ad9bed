"""The other end of a contender's pipe: benchmark_worker.py in a process of its own."""

import time
from collections.abc import Mapping
from typing import Any

from regard.errors import RegardError


class Process:
    """A contender that has answered once. RegardError where it cannot, or where its process ends."""

    def __init__(self, name: str, wanted: Mapping[str, Any], threads: int) -> None:
        from regard.compare.processes import Worker

        self.name, own = name, str(threads)
        began = time.monotonic()
        self._worker = Worker(
            "regard.api.benchmark_worker", environment={"OMP_NUM_THREADS": own, "MKL_NUM_THREADS": own}
        )
        try:
            self._ask(wanted)
        except BaseException:
            self.end()
            raise
        self.first_answer_seconds = time.monotonic() - began

    def seconds(self, place: int, calls: int) -> float:
        """Of one call with the batch at `place`: the median of some calls."""
        return float(self._ask({"batch": place, "calls": calls})["seconds"])

    def memory_mb(self) -> float:
        return float(self._ask({"memory": True})["memory_mb"])

    def end(self) -> None:
        """The worker ends by itself when nobody asks any more."""
        self._worker.close()

    def _ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        from regard.compare.processes import ProcessEndedError

        try:
            answer: dict[str, Any] = self._worker.ask(question)
        except ProcessEndedError as error:
            killed = f"killed by signal {-error.status}, perhaps for its memory"
            why = killed if error.status < 0 else error.last_line[:200] or f"status {error.status}"
            raise RegardError(f"{self.name}: its process ended ({why})") from None
        if "error" in answer:
            raise RegardError(f"{self.name}: {answer['error']}")
        return answer
