"""How TensorFlow uses the cores when it trains."""

import os


def one_thread_an_operation() -> None:
    """On two cores, run two operations side by side, each in one thread. To be called before TensorFlow's first operation;
    ``TF_NUM_INTEROP_THREADS`` and ``TF_NUM_INTRAOP_THREADS``, where they are set, decide.

    TensorFlow's own way, both threads for one operation, waits at the end of each for the slower one, and small operations
    take longer with a second thread than without. A step of the KuaiRand preset takes three quarters of the time, of
    a large network 0.96 (docs/performance.md). On more cores nothing was measured, and nothing is set.
    """
    if os.cpu_count() == 2 and "TF_NUM_INTEROP_THREADS" not in os.environ:
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
