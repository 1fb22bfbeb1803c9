"""Memory use of a device."""

import subprocess
import sys
import textwrap


def test_code_that_only_the_start_ran_leaves_memory_and_is_back_when_it_is_called() -> None:
    program = """
        import hashlib
        import numpy as np
        import edge.agent
        from edge.operation.memory import release_memory

        def resident_kib():
            lines = open("/proc/self/status").read().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("RssFile"))

        def work():
            numbers = np.random.default_rng(0).normal(size=(50, 50))
            return hashlib.sha256(np.linalg.inv(numbers).round(6).tobytes()).hexdigest()

        expected, before = work(), resident_kib()
        release_memory()
        after = resident_kib()
        assert work() == expected
        print(before, after)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    before, after = (int(word) for word in done.stdout.split())
    assert after < 0.75 * before
