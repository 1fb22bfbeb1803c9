"""Size of the next step of a long job, chosen so that one step takes about a given time."""


class Pace:
    """Number of items of a step: doubled after quick steps, cut after slow ones."""

    def __init__(self, step_s: float, first: int, largest: int) -> None:
        self.size = first
        self.longest_s = 0.0
        self._step_s, self._largest = step_s, largest

    def measured(self, seconds: float) -> None:
        """Adapt `size` to the duration of a step of that size."""
        self.longest_s = max(self.longest_s, seconds)
        if seconds > self._step_s:
            self.size = max(1, int(self.size * self._step_s / seconds))
        elif seconds < self._step_s / 2:
            self.size = min(self._largest, 2 * self.size)
