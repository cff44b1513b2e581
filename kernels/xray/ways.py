"""The least cost of ways through a graph that gain so much: instructions, and arithmetic.

A way from a function's entry to its end is a simple path and cycles. Let every unit gained be worth
so many units of cost. Where no cycle then gains more than it costs, no way comes to less, costs
less gains, than the cheapest path. So ways that gain `wanted` on average cost at least ``worth *
wanted`` and, on top, what that path costs less ``worth`` times its gain. The best of these bounds,
over all worths, is searched for; as a linear programme's dual it is the least cost of shares in
paths and cycles. (A cycle may have a share though no path leads by it: real ways may cost more.)

The worth has a limit, the least cost by gain of any cycle (E. L. Lawler, Optimal cycles in doubly
weighted directed linear graphs, 1966), found by Newton's method. Below it the bound is concave in
the worth, and its corners are the paths that become cheapest as the worth grows (M. J. Eisner and
D. G. Severance, Mathematical techniques for efficient record segmentation in large shared
databases, 1976). Paths and cycles are found by Bellman's and Ford's method, in whole numbers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from fractions import Fraction

from kernels.xray import loops as flow


@dataclasses.dataclass(frozen=True)
class _Way:
    cost: int
    gain: int
    is_cycle: bool

    def at(self, worth: Fraction) -> Fraction:
        return self.cost - worth * self.gain


def successors(graph: list[flow.Block]) -> list[list[int]] | None:
    """Return which blocks can come after each, and, as one block more, the thread's end.

    Beside a block's own successors these are the ways into subroutines of the function and back.
    Which one returns to where is not told apart: there are more ways here than a thread can take,
    and none is missing. None where one may be: control goes to an address from a register, or to
    another function.
    """
    end = len(graph)
    reached = flow.reachable(graph)
    # ptxas puts subroutines behind the function; names alone do not tell where.
    inside = [number for number in range(end) if number not in reached]
    behind = [n for n in range(1, end) if graph[n - 1].instructions[-1].base == "CALL"]
    found = []
    for block in graph:
        last, after = block.instructions[-1], list(block.successors)
        if last.base in flow.INDIRECT:
            return None
        if last.base == "CALL" and last.operands.startswith("$"):
            after += inside
        elif last.base == "CALL" and not last.operands.startswith("0x"):
            return None
        if last.base == "RET" and behind:
            after += behind
        elif last.base in flow.ENDS or not after:
            after.append(end)
        found.append(after)
    return [*found, []]


def least_cost(
    after: Sequence[Sequence[int]], costs: Sequence[int], gains: Sequence[int], wanted: float
) -> float | None:
    """Return the least that ways cost which gain `wanted` on average.

    Parameters
    ----------
    after
        The nodes that can come after each. Ways go from the first node to the last.
    costs, gains
        What each visit of a node costs and gains; neither is negative, and no cycle is free.
    wanted
        Where no way gains so much, the most that one does is taken instead.

    Returns
    -------
    float or None
        None where no way reaches the last node.
    """
    beyond = worth = Fraction(sum(costs) + 1)  # more than a cycle that gains anything costs
    while (most := _cheapest(after, costs, gains, worth)) and most.is_cycle:
        worth = Fraction(most.cost, most.gain)
    least = _cheapest(after, costs, gains, Fraction(0))
    if most is None or least is None:
        return None
    if worth == beyond:
        wanted = min(wanted, most.gain)
    if most.gain <= wanted:
        return float(most.at(worth) + worth * Fraction(wanted))
    while least.gain < wanted:
        worth = Fraction(most.cost - least.cost, most.gain - least.gain)
        way = _cheapest(after, costs, gains, worth)
        if way is None or way.at(worth) == least.at(worth):
            return float(least.at(worth) + worth * Fraction(wanted))
        least, most = (way, most) if way.gain <= wanted else (least, way)
    return float(least.cost)


def _cheapest(
    after: Sequence[Sequence[int]], costs: Sequence[int], gains: Sequence[int], worth: Fraction
) -> _Way | None:
    """Return the path of least cost less worth, or a cycle that is worth more than it costs.

    None where neither is.
    """
    weights = [
        cost * worth.denominator - gain * worth.numerator
        for cost, gain in zip(costs, gains, strict=True)
    ]
    distance, before = {0: weights[0]}, dict[int, int]()
    changed, cycle = True, list[int]()
    while changed and not cycle:
        changed = False
        for node, following in enumerate(after):
            for other in following if node in distance else ():
                there = distance[node] + weights[other]
                if other not in distance or there < distance[other]:
                    distance[other], before[other], changed = there, node, True
        cycle = _cycle(before)  # shows in `before` long before the distances would tell
    if not cycle and len(after) - 1 not in distance:
        return None
    nodes = cycle or [len(after) - 1]
    while not cycle and nodes[-1] in before:
        nodes.append(before[nodes[-1]])
    return _Way(sum(costs[n] for n in nodes), sum(gains[n] for n in nodes), bool(cycle))


def _cycle(before: dict[int, int]) -> list[int]:
    """Return the nodes of a cycle among those that follow from each other, if there is one."""
    seen: dict[int, int] = {}
    for start in before:
        node = start
        while node in before and node not in seen:
            seen[node] = start
            node = before[node]
        if seen.get(node) == start:
            nodes = [node]
            while (node := before[node]) != nodes[0]:
                nodes.append(node)
            return nodes
    return []
