"""The least cost of a way: by hand, against every path and cycle of small graphs, against walks."""

from __future__ import annotations

import itertools
import random
import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.xray.disassembly import Instruction
from kernels.xray.sass import Function
from kernels.xray.ways import least_cost

# Name: the nodes after each, their costs and gains, and what gains cost at the least.
BY_HAND = {
    "a straight line": ([[1], []], [7, 3], [4, 0], {0: 10, 4: 10}),
    "more than the only way gains": ([[1], []], [7, 3], [4, 0], {9: 10}),
    "a loop: 5 before, 8 a turn of 4, 2 behind": (
        [[1], [1, 2], []], [5, 8, 2], [0, 4, 0], {0: 15, 4: 15, 8: 23, 40: 87, 6: 19},
    ),
    "what stands around the dense block in its loop": (
        [[1], [2], [3], [1, 4], []], [1, 10, 4, 6, 1], [0, 0, 8, 0, 0], {8: 22, 80: 202},
    ),
    "a turn can go around the dearer of two branches": (
        [[1], [2, 3], [4], [4], [1, 5], []],
        [0, 1, 9, 3, 2, 0], [0, 0, 0, 0, 2, 0], {2: 6, 200: 600},
    ),
    "an inner loop need not take the outer one along": (
        [[1], [2], [2, 3], [1, 4], []], [1, 20, 3, 20, 1], [0, 0, 2, 0, 0], {2: 45, 202: 345},
    ),
    "half of the lanes leave at a guard": (
        [[1, 2], [2], []], [3, 50, 1], [0, 20, 0], {0: 4, 10: 29, 20: 54, 30: 54},
    ),
    "the loop that gains more by its cost": (
        [[1, 2], [1, 3], [2, 3], []], [1, 6, 10, 1], [0, 4, 8, 0], {4: 8, 8: 12, 80: 102},
    ),
    "a loop that gains nothing": ([[0, 1], []], [5, 2], [0, 3], {0: 7, 3: 7, 99: 7}),
}  # fmt: skip


@pytest.mark.parametrize(("after", "costs", "gains", "known"), BY_HAND.values(), ids=list(BY_HAND))
def test_by_hand(after, costs, gains, known):
    for wanted, cost in known.items():
        assert least_cost(after, costs, gains, wanted) == cost, wanted


def test_no_way_to_the_end():
    assert least_cost([[0], []], [1, 0], [1, 0], 5) is None
    assert least_cost([[0], []], [1, 0], [0, 0], 5) is None


@st.composite
def graphs(draw, most):
    size = draw(st.integers(2, most))
    after = [
        draw(st.lists(st.integers(0, size - 1), max_size=3, unique=True)) for _ in range(size - 1)
    ]
    costs = [draw(st.integers(1, 12)) for _ in range(size - 1)]
    gains = [draw(st.sampled_from([0, 0, 1, 2, 9])) for _ in range(size - 1)]
    return [*after, []], [*costs, 0], [*gains, 0]


def simple_ways(after):
    """Return the nodes of every simple path to the last node, and of every reachable cycle."""
    paths, cycles = [], set()

    def go(way):
        if way[-1] == len(after) - 1:
            paths.append(tuple(way))
        for other in after[way[-1]]:
            if other in way:
                cycles.add(tuple(way[way.index(other) :]))
            else:
                go([*way, other])

    go([0])
    return paths, cycles


@given(graphs(6), st.integers(0, 60))
def test_no_mixture_of_paths_and_cycles_costs_less_and_one_costs_as_much(graph, wanted):
    """The programme by its corners: one path, two of them, or a path and a cycle, in shares."""
    after, costs, gains = graph
    paths, cycles = (
        {(sum(costs[n] for n in way), sum(gains[n] for n in way)) for way in ways}
        for ways in simple_ways(after)
    )
    if not paths:
        assert least_cost(after, costs, gains, wanted) is None
        return
    if not any(gain for _, gain in cycles):
        wanted = min(wanted, max(gain for _, gain in paths))
    found = [Fraction(cost) for cost, gain in paths if gain >= wanted]
    for (low, few), (high, many) in itertools.product(paths, paths):
        if few < wanted < many:
            found.append(low + Fraction((high - low) * (wanted - few), many - few))
    for (cost, gain), (turn, more) in itertools.product(paths, cycles):
        if gain < wanted and more:
            found.append(cost + Fraction(turn * (wanted - gain), more))
    assert least_cost(after, costs, gains, wanted) == pytest.approx(float(min(found)))


@given(graphs(12), st.randoms(use_true_random=False))
def test_walks_cost_as_much_or_more(graph, chance):
    """Each walk alone, and all on average, as the lanes of a warp."""
    after, costs, gains = graph
    walks = []
    for _ in range(20):
        node, cost, gain = 0, costs[0], gains[0]
        for _ in range(100):
            if not after[node]:
                break
            node = chance.choice(after[node])
            cost, gain = cost + costs[node], gain + gains[node]
        if node == len(after) - 1:
            walks.append((cost, gain))
            assert cost >= least_cost(after, costs, gains, gain) - 1e-9
    if walks:
        cost, gain = (sum(each) / len(walks) for each in zip(*walks, strict=True))
        assert cost >= least_cost(after, costs, gains, gain) - 1e-9


def test_thousands_of_instructions_take_milliseconds():
    """1,000 blocks, one in five with a jump back; the limit leaves room for a busy machine."""
    chance = random.Random(1)
    size = 1000
    after = [
        sorted({node + 1, min(size, node + chance.randrange(1, 9))})
        + ([max(0, node - chance.randrange(100))] if chance.random() < 0.2 else [])
        for node in range(size)
    ] + [[]]
    costs = [chance.randrange(1, 20) for _ in range(size)] + [0]
    gains = [chance.choice([0, 0, 1, 16]) for _ in range(size)] + [0]
    began = time.process_time()
    assert least_cost(after, costs, gains, 1e5) > 0
    assert time.process_time() - began < 1


# Where control goes in machine code.


def function(text: str) -> Function:
    """Return code of one instruction a line: predicate, opcode, operands; labels are addresses."""
    lines = [line.split() for line in text.strip().splitlines()]
    made = []
    for number, words in enumerate(lines):
        predicate = words.pop(0) if words[0].startswith("@") else ""
        opcode, operands = words[0], "".join(words[1:])
        made.append(Instruction(16 * number, opcode, operands, predicate, "", 0))
    return Function("f", made)


def test_a_thread_ends_at_any_exit():
    """The guard's lanes issue 2; the others' 4 do one operation."""
    code = function("ISETP\n@P0 EXIT\nFADD\nEXIT\nBRA 0x40")
    assert [code.least_instructions(flops) for flops in (0, 0.5, 1)] == [2, 3, 4]


SUBROUTINE = """
    MOV
    MOV
    CALL.REL.NOINC $f$sub
    @P0 BRA 0x10
    STG
    EXIT
    MOV
    FFMA
    FFMA
    RET.REL.NODEC R4,f
    BRA 0xa0
"""


def test_a_subroutine_is_gone_into_and_come_back_from():
    """A turn: 3 instructions of the loop and 4 of the subroutine for 4 operations."""
    code = function(SUBROUTINE)
    assert code.least_instructions(4) == 1 + 7 + 2
    assert code.least_instructions(400) == 1 + 7 * 100 + 2


def test_a_return_may_lead_behind_any_call():
    """Less than any run: from the second call's subroutine back behind the first call."""
    code = function("""
        CALL.REL.NOINC $f$sub
        CALL.REL.NOINC $f$sub
        IADD3
        IADD3
        EXIT
        FFMA
        RET.REL.NODEC R4,f
    """)
    assert code.least_instructions(4) == 1 + 2 + 1 + 2 + 3
    assert code.least_instructions(200) == 1 + 3 * 99 + 2 + 3


@pytest.mark.parametrize(
    "jump", ["BRX R2,-0x40", "CALL.ABS.NOINC R8", "CALL.REL.NOINC R2,f", "CALL.ABS.NOINC other"]
)
def test_what_goes_to_unknown_places_has_no_least(jump):
    assert function(f"FFMA\n{jump}\nFFMA\nEXIT").least_instructions(2) is None


def test_code_that_never_ends_has_no_least():
    assert function("FFMA\nBRA 0x0").least_instructions(2) is None


CALL = "CALL.REL.NOINC $f$sub"


@given(
    st.lists(
        st.sampled_from(["FFMA", "IMAD", "@P0 BRA", "BRA", "@P1 EXIT", CALL, f"@P2 {CALL}"]),
        max_size=12,
    ),
    st.lists(st.sampled_from(["FFMA", "IMAD", "@P3 RET.REL.NODEC R4,f"]), max_size=4),
    st.randoms(use_true_random=False),
)
def test_runs_of_random_code_issue_as_much_or_more(lines, subroutine, chance):
    """Instruction by instruction, without basic blocks, every branch taken by chance."""
    lines = [
        f"{line} {16 * chance.randrange(len(lines)):#x}" if "BRA" in line else line
        for line in lines
    ]
    code = function("\n".join([*lines, "EXIT", *subroutine, "RET.REL.NODEC R4,f"]))
    for _ in range(20):
        at, issued, flops, back = 0, 0, 0, []
        while issued < 200:
            one = code.instructions[at]
            issued, flops = issued + 1, flops + 2 * (one.base == "FFMA")
            at += 1
            if one.predicate and chance.random() < 0.5:
                continue
            if one.base == "EXIT":
                least = code.least_instructions(flops)
                assert least is not None
                assert issued >= least - 1e-9
                break
            if one.base == "BRA":
                at = int(one.operands, 16) // 16
            elif one.base == "CALL":
                back.append(at)
                at = len(lines) + 1
            elif one.base == "RET":
                at = back.pop()
