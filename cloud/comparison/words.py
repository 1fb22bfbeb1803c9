"""Comparisons in words, for the console and the command line."""

from cloud.comparison.figures import ShareFigures, SideFigures
from cloud.store.comparisons import AskedSamples, Comparison, ComparisonStatus, SampleChoice
from cloud.words import NO_FIGURE, SPACE, count_words, duration_words, p_value_words


def asked_words(asked: AskedSamples) -> str:
    """Return the samples that were asked for: "at most 500 newest stored samples"."""
    kind = "labelled samples" if asked.choice is SampleChoice.LABELLED else "newest stored samples"
    return f"at most {count_words(asked.size)} {kind}"


def answer_words(p_value: float | None) -> str:
    """Return the p-value of an answer in words; a dash without one."""
    return NO_FIGURE if p_value is None else p_value_words(p_value, False)


def share_words(figures: ShareFigures) -> str:
    """Return a share with its count and interval: "92 % (46 of 50; 81 to 97 %)"."""
    if figures.value is None or figures.low is None or figures.high is None:
        return NO_FIGURE
    low, high = 100 * figures.low, 100 * figures.high
    return f"{100 * figures.value:.0f}{SPACE}% ({figures.hits} of {figures.count}; {low:.0f} to {high:.0f}{SPACE}%)"


def progress_words(comparison: Comparison) -> str:
    """Return how far a comparison is, with the remaining time; empty if it ended before its samples were chosen."""
    if comparison.status is ComparisonStatus.WAITING:
        return "waits for its turn"
    if comparison.samples is None:
        return "chooses samples" if comparison.status is ComparisonStatus.RUNNING else ""
    text = f"{count_words(comparison.judged)} of {count_words(comparison.samples)} samples"
    if comparison.status is not ComparisonStatus.RUNNING:
        return text
    if comparison.waits_for_live:
        return f"{text}; it waits while samples of devices are judged"
    remaining_s = comparison.remaining_s
    return f"{text}, about {duration_words(remaining_s)} left" if remaining_s is not None else f"{text}; it loads"


def auroc_words(side: SideFigures) -> str:
    """Return the AUROC of a bundle with its interval; a dash without labelled samples of both kinds."""
    if side.auroc is None or side.auroc_low is None or side.auroc_high is None:
        return NO_FIGURE
    return f"{side.auroc:.3f} ({side.auroc_low:.3f} to {side.auroc_high:.3f})"


def latency_words(side: SideFigures) -> str:
    """Return the median of the time a sample and the time within which 95 in 100 are judged."""
    if side.latency_median_ms is None or side.latency_p95_ms is None:
        return NO_FIGURE
    median_words, most_words = (duration_words(ms / 1000) for ms in (side.latency_median_ms, side.latency_p95_ms))
    return f"{median_words}, 95 in 100 within {most_words}"
