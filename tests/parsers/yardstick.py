"""Time as a ratio to something that the same machine does in the same run."""

import time


def best_of_three(function):
    def seconds():
        start = time.perf_counter()
        function()
        return time.perf_counter() - start

    return min(seconds() for _ in range(3))
