"""Interval at which threads of the analysis give the interpreter to one another.

PyTorch gives the interpreter's lock away in each of its operations and takes it back afterwards. Where another thread
computes in Python, each of these waits for up to the interval, by default 5 ms: longer than most operations take.
"""

import sys

SWITCH_S = 0.0005


def shorten_switch_interval() -> None:
    """Let threads that wait for the interpreter get it within SWITCH_S."""
    sys.setswitchinterval(SWITCH_S)
