"""Puts what a traced launch left behind into the source's terms: lines, arrays, indices, words."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from kernels import emulator
from kernels.emulator.module import Function

from . import binding, names
from .code import lines_of, read_code
from .memory import Argument
from .record import Access, Array, Branch, Finding, Index3, Line, Party, Recording, Warp


class Translation:
    """
    One launch.

    Parameters
    ----------
    function : Function
        Of the traced build.
    files : sequence of Path
        The kernel's file, then what it includes.
    grid, block : tuple of 3 int
        Blocks, and threads a block.
    shared_mem : int
        Bytes of dynamic shared memory.
    regions : sequence of (binding.Array, Argument)
        The arrays it was given, as the runtime was told them.
    """

    def __init__(
        self,
        function: Function,
        files: Sequence[Path],
        grid: Index3,
        block: Index3,
        shared_mem: int,
        regions: Sequence[tuple[binding.Array, Argument]],
    ) -> None:
        self.function = function
        self.files = files
        self.grid, self.block, self.shared_mem = grid, block, shared_mem
        self.blocks = grid[0] * grid[1] * grid[2]
        self.regions = regions
        library = function.module.library_path
        self.shared = names.shared_arrays(library)
        self.lines = lines_of(library, tuple(files))

    def recording(self, seen: binding.Result, ended: emulator.EmulatorError | None) -> Recording:
        """Return all that was seen; `ended` is what ended the kernel early, if anything did."""
        accesses = [seen.accesses[i] for i in range(seen.access_count)]
        blocks = [seen.blocks[i] for i in range(seen.block_count)]
        faults = [seen.findings[i] for i in range(seen.finding_count)]
        code = read_code(self.function.module.library_path)
        pcs = {access.pc for access in accesses} | {block.pc for block in blocks}
        pcs |= {fault.pc for fault in faults} | {fault.other_pc for fault in faults}
        executed = {block.pc: block.lanes for block in blocks}
        done = [
            (one.pc + 1, one.flops * executed[one.block])
            for one in code.arithmetic
            if one.block in executed
        ]
        # A block's line as a branch is that of its jump, which may be far from where it begins.
        decisions = {
            block.pc: code.decisions.get(block.pc, block.pc - 1) + 1
            for block in blocks
            if block.is_branch
        }
        self.lines.look_up(pcs | {pc for pc, _ in done} | set(decisions.values()))
        threads = self.block[0] * self.block[1] * self.block[2]
        findings = self._findings(faults)
        if isinstance(ended, emulator.BarrierDivergence):
            findings.append(self._divergence(str(ended)))
        flops: dict[tuple[str, int], int] = {}
        for pc, count in done:
            place = self.lines.flow(pc)
            flops[place] = flops.get(place, 0) + count
        counted = {"tf32": seen.tf32_flops, "bf16": seen.bf16_flops}
        tensor = {name: count for name, count in counted.items() if count}
        build = self.function.module.build
        return Recording(
            kernel=self.function.name,
            file=str(self.files[0]),
            defines={name: str(value) for name, value in build.defines},
            grid=self.grid,
            block=self.block,
            static_shared_bytes=self.function.static_shared_bytes,
            dynamic_shared_bytes=self.shared_mem,
            accesses=self._accesses(accesses),
            branches=self._branches(blocks, decisions),
            lines=tuple(Line(*place, count) for place, count in sorted(flops.items())),
            findings=tuple(findings),
            flops=sum(flops.values()) + sum(tensor.values()),
            tensor_flops=tensor,
            arrays=tuple(
                Array(
                    argument.name,
                    argument.array.dtype.name,
                    argument.array.nbytes,
                    seen.uses[i].read_bytes,
                    seen.uses[i].written_bytes,
                    seen.uses[i].read_sectors,
                    seen.uses[i].written_sectors,
                )
                for i, (_, argument) in enumerate(self.regions)
            ),
            blocks=self.blocks,
            warps=self.blocks * -(-threads // 32),
            blocks_traced=seen.blocks_traced,
            cut=seen.cut,
            seconds=0.0,
            races_unseen=tuple(
                argument.name
                for region, argument in self.regions
                if not region.is_const and not region.has_cells
            ),
            local_arrays=build.local_arrays,
        )

    def _accesses(self, seen: Sequence[binding.Access]) -> tuple[Access, ...]:
        found = []
        for access in sorted(seen, key=lambda access: access.pc):
            space = binding.SPACES[access.space]
            if space == "ignored":
                continue
            file, line = self.lines.access(access.pc)
            name, itemsize = self._array(access.array, access.bytes)
            found.append(
                Access(
                    file=file,
                    line=line,
                    array=name or "local memory",
                    space=space,
                    operation=binding.OPERATIONS[access.operation],
                    width=access.bytes,
                    itemsize=itemsize,
                    requests=access.requests,
                    lanes=access.lanes,
                    bytes=access.lanes * access.bytes,
                    unique_bytes=access.unique_bytes,
                    sectors=access.sectors,
                    ideal_sectors=access.ideal_sectors,
                    wavefronts=access.wavefronts,
                    ideal_wavefronts=access.ideal_wavefronts,
                    conflicts=access.conflicts,
                    warp=self._warp(access, itemsize) if access.example_cost else None,
                )
            )
        order = {str(file): number for number, file in enumerate(self.files)}
        return tuple(sorted(found, key=lambda access: (order[access.file], access.line)))

    def _warp(self, access: binding.Access, itemsize: int) -> Warp:
        elements = tuple(
            (access.example[lane] - access.begin) // itemsize
            if access.example_mask >> lane & 1
            else None
            for lane in range(32)
        )
        return Warp(
            self._block(access.example_block), access.example_warp, access.begin % 128, elements
        )

    def _branches(
        self, seen: Sequence[binding.Block], decisions: dict[int, int]
    ) -> tuple[Branch, ...]:
        sums: dict[tuple[str, int], list[int]] = {}
        for block in seen:
            if not block.is_branch:
                continue
            counts = sums.setdefault(self.lines.flow(decisions[block.pc]), [0, 0, 0])
            for i, count in enumerate((block.executions, block.lanes, block.divergent)):
                counts[i] += count
        return tuple(Branch(*place, *counts) for place, counts in sorted(sums.items()))

    def _findings(self, seen: Sequence[binding.Finding]) -> list[Finding]:
        found: dict[tuple[str, str, int, str | None], Finding] = {}
        for fault in seen:
            kind = binding.FAULTS[fault.kind]
            file, line = self.lines.access(fault.pc)
            name, itemsize = self._array(fault.array, fault.bytes)
            key = (kind, file, line, name)
            if key in found:
                known = found[key]
                found[key] = dataclasses.replace(known, count=known.count + fault.count)
                continue
            other = None
            if kind == "race":
                other = Party(
                    *self.lines.access(fault.other_pc),
                    self._block(fault.other_block),
                    self._thread(fault.other_thread),
                    binding.OPERATIONS[fault.other_operation],
                )
            index = fault.offset // itemsize if name else None
            found[key] = Finding(
                kind=kind,
                kernel=self.function.name,
                file=file,
                line=line,
                block=self._block(fault.block),
                thread=self._thread(fault.thread),
                array=name,
                index=index,
                message=self._message(kind, fault, name, index, other),
                count=fault.count,
                other=other,
            )
        return list(found.values())

    def _message(
        self,
        kind: str,
        fault: binding.Finding,
        name: str | None,
        index: int | None,
        other: Party | None,
    ) -> str:
        does = {"read": "reads", "write": "writes", "atomic": "updates"}
        what = does[binding.OPERATIONS[fault.operation]]
        element = f"{name}[{index}]"
        if kind == "bounds":
            size = self._elements(fault.array, fault.bytes)
            return f"{what} {element}, outside of its {size} elements"
        if kind == "foreign":
            return f"{what} {fault.bytes} bytes at {fault.address:#x}, which is in no array"
        if kind == "misaligned":
            return (
                f"{what} {fault.bytes} bytes at {element}, byte {fault.offset} of the array: "
                f"no multiple of {fault.bytes}"
            )
        if other is None:
            return f"{what} {element}, which nothing has written"
        where = f"thread {other.thread}"
        if other.block != self._block(fault.block):
            where = f"block {other.block}, {where}"
        return (
            f"{what} {element}, which {where} {does[other.operation]} at "
            f"{Path(other.file).name}:{other.line}, and nothing orders the two"
        )

    def _divergence(self, text: str) -> Finding:
        place = re.search(r" at ([^\s:]+):(\d+)", text)
        file = next((f for f in self.files if place and f.name == place[1]), self.files[0])
        block = re.search(r"block \((\d+), (\d+), (\d+)\)", text)
        thread = re.search(r"thread \((\d+), (\d+), (\d+)\)", text)
        return Finding(
            kind="barrier",
            kernel=self.function.name,
            file=str(file),
            line=int(place[2]) if place else 0,
            block=_index3(block),
            thread=_index3(thread),
            array=None,
            index=None,
            message=re.sub(r"^.*?block \([^)]*\)(?:, thread \([^)]*\))?: ", "", text),
        )

    def _array(self, number: int, width: int) -> tuple[str | None, int]:
        """Return an array's name, and bytes an element."""
        if number < 0:
            return None, width
        if number < len(self.regions):
            argument = self.regions[number][1]
            return argument.name, argument.array.itemsize
        return self.shared[number - len(self.regions)][0], width

    def _elements(self, number: int, width: int) -> int:
        if number < len(self.regions):
            return int(self.regions[number][1].array.size)
        name, _, size = self.shared[number - len(self.regions)]
        is_dynamic = size > 227 << 10 or name == names.DYNAMIC
        return (self.shared_mem if is_dynamic else size) // width

    def _block(self, linear: int) -> Index3:
        x, y, _ = self.grid
        return linear % x, linear // x % y, linear // x // y

    def _thread(self, linear: int) -> Index3:
        x, y, _ = self.block
        return linear % x, linear // x % y, linear // x // y


def _index3(found: re.Match[str] | None) -> Index3 | None:
    return None if found is None else (int(found[1]), int(found[2]), int(found[3]))
