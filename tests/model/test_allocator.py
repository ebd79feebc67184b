import platform
import subprocess
import sys

import pytest

from moe_toy.model.allocator import keep_freed_memory

FAULTS_OF_ONE_MORE_BLOCK = """
import resource
from moe_toy.model.allocator import keep_freed_memory

if {keep}:
    keep_freed_memory()
for _ in range(12):  # the heap settles after a few
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"x" * (1 << 26)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
ON_GLIBC = platform.libc_ver()[0] == "glibc"


def faults(keep: bool) -> int:
    program = FAULTS_OF_ONE_MORE_BLOCK.format(keep=keep)
    return int(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not ON_GLIBC, reason="only glibc has the switch")
def test_a_freed_block_leaves_its_memory_to_the_next():
    assert faults(keep=True) < faults(keep=False) / 10


def test_it_says_whether_the_c_library_has_the_switch():
    assert keep_freed_memory() == ON_GLIBC
