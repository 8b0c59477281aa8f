"""Freed memory is used again where that was asked for; in processes of their own, since it holds for a whole one."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, threading
from data.memory import keep_freed

if sys.argv[1] == "kept":
    keep_freed()

def work():
    for _ in range(5):
        bytearray(b"x") * (1 << 26)

work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
thread = threading.Thread(target=work)
thread.start()
thread.join()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    """Pages that are touched for the first time by a second thread's arrays."""
    answer = subprocess.run([sys.executable, "-c", FAULTS, how], check=True, stdout=subprocess.PIPE, text=True)
    return int(answer.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_used_again_by_every_thread() -> None:
    assert faults("kept") < faults("given back") / 100
