"""What a page of metrics says, and what a process tree costs."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.client import cpu
from tidemill.client.bench.meter import Reading, cost_per_1000, cpu_s, read, rows_per_batch

PAGE = """# TYPE tidemill_batch_rows histogram
tidemill_batch_rows_bucket{model="m",version="1",le="1"} 2
tidemill_batch_rows_bucket{model="m",version="1",le="+Inf"} 4
tidemill_batch_rows_count{model="m",version="1"} 4
tidemill_batch_rows_sum{model="m",version="1"} 10
tidemill_batch_rows_bucket{model="other",version="1",le="+Inf"} 9
tidemill_batch_rows_count{model="other",version="1"} 9
tidemill_batch_rows_sum{model="other",version="1"} 9
# TYPE tidemill_process_cpu_seconds counter
tidemill_process_cpu_seconds_total 1.5
"""


def test_a_page_tells_of_its_model_alone() -> None:
    assert read(PAGE, "m") == Reading(1.5, 4, 10)
    assert read(PAGE, "nobody") == Reading(1.5, None, None)


def test_another_servers_page_tells_its_cpu_time() -> None:
    assert read("# TYPE process_cpu_seconds counter\nprocess_cpu_seconds_total 2.25\n", "m") == Reading(2.25)


@given(st.text(max_size=80))
def test_whatever_a_page_says_nothing_breaks(text: str) -> None:
    read(text, "m")


def test_differences_are_told_only_where_they_are_known() -> None:
    before, after = Reading(1.0, 2, 4), Reading(1.5, 4, 10)
    assert rows_per_batch(before, after) == 3
    assert cpu_s(before, after) == 0.5
    assert rows_per_batch(before, before) is None
    assert rows_per_batch(Reading(), after) is None
    assert cpu_s(after, before) is None, "a server that began anew in between"


def test_what_a_core_costs() -> None:
    assert cost_per_1000(3600.0, 2.0) == pytest.approx(0.002)  # 1,000 requests of 3.6 ms are a thousandth of an hour
    assert cost_per_1000(None, 2.0) is None
    assert cost_per_1000(1.0, None) is None


BUSY = "import time\nwhile time.process_time() < 0.2: pass\n"
PARENT = f"""import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {BUSY!r} + "print('spent', flush=True); input()"],
                         stdin=sys.stdin, stdout=sys.stdout)
child.wait()
print("reaped", flush=True)
input()
"""


def test_the_cpu_time_of_a_tree_holds_running_and_reaped_children() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        assert parent.stdout.readline() == "spent\n"
        assert 0.2 <= cpu.tree_cpu_s(parent.pid) < 10
        assert cpu.tree_cpu_s(parent.pid, parent.pid) == pytest.approx(cpu.tree_cpu_s(parent.pid), abs=0.05)
        parent.stdin.write("\n")
        parent.stdin.flush()
        assert parent.stdout.readline() == "reaped\n"
        if sys.platform.startswith("linux"):
            assert cpu.tree_cpu_s(parent.pid) >= 0.2
        parent.stdin.write("\n")
        parent.stdin.flush()


def test_listeners_of_another_machine_are_not_known() -> None:
    assert cpu.listeners("192.0.2.1", 80) == ()
    assert cpu.total_of(()) is None
    assert cpu.is_here("127.0.0.1")
    assert cpu.is_here("localhost")
    assert not cpu.is_here("192.0.2.1")
