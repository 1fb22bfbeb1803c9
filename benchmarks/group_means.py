"""Means of figures over the tasks of each group, for the benchmarks of choices."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

import numpy as np

QUICK_TASKS = 1  # per group


class NamedTask(Protocol):
    """Task of a group."""

    @property
    def name(self) -> str:
        """Name that is printed with the figures."""
        ...


Task = TypeVar("Task", bound=NamedTask)


def group_means(
    groups: Sequence[str],
    tasks: Callable[[str], Iterable[Task]],
    measure: Callable[[str, int, Task], dict[str, float]],
    *,
    quick: bool,
) -> dict[str, dict[str, float]]:
    """Return the mean of each figure by group, and over the groups; `quick` uses QUICK_TASKS tasks per group.

    `measure`: figures of a task, given its group, its number within the group and the task.
    """
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for group in groups:
        for number, task in enumerate(tasks(group)):
            if quick and number >= QUICK_TASKS:
                break
            figures = measure(group, number, task)
            for name, value in figures.items():
                found[name][group].append(value)
            print(group, task.name, {name: round(value, 3) for name, value in figures.items()}, flush=True)
    return {name: _means(values) for name, values in found.items()}


def _means(groups: dict[str, list[float]]) -> dict[str, float]:
    means = {group: round(float(np.mean(values)), 3) for group, values in groups.items()}
    return means | {"mean": round(float(np.mean(list(means.values()))), 3)}
