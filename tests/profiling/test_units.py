import pytest

from profiling import units
from profiling.result_file import Timing


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1.234e-5, "12.3 µs"), (9.999e-4, "1.00 ms"), (0.5, "500 ms"), (2, "2.00 s"),
     (1234, "1,230 s"), (3e-11, "0.0300 ns"), (0.0, "0 ns")],
)  # fmt: skip
def test_times_have_three_digits_and_a_unit(seconds, text):
    assert units.seconds(seconds) == text


def test_intervals_rates_and_shares():
    timing = Timing(1e-3, 9.999e-4, 1.0213e-3, [], 1, "events", True)
    assert units.interval(timing) == "1.00 to 1.02 ms"
    assert units.rate(66.9e12, "FLOP/s") == "66.9 TFLOP/s"
    assert [units.share(s) for s in (0.382, 0.0412, 1.0)] == ["38 %", "4.1 %", "100 %"]
