"""The block pool against a model of it: no leak, no double free, least recently used first, nothing in use ever taken."""

from __future__ import annotations

from collections import OrderedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from setpoint.engine.kv_blocks import ROOT_HASH, BlockPool, OutOfBlocks, chain_hash

DIGESTS = [chain_hash(ROOT_HASH, [number]) for number in range(12)]
pick = st.integers(0, 1 << 16)


class PoolMachine(RuleBasedStateMachine):
    """Owners hold block tables; the model knows who refers to what, which hash finds what, and the order of use."""

    @initialize(blocks=st.integers(1, 12))
    def build(self, blocks: int) -> None:
        self.pool = BlockPool(blocks, 4)
        self.owners: list[list[int]] = []
        self.references = [0] * blocks
        self.digest_of: dict[int, bytes] = {}
        self.cached: OrderedDict[int, None] = OrderedDict()

    @property
    def free(self) -> set[int]:
        return {b for b, count in enumerate(self.references) if count == 0 and b not in self.cached}

    @rule(count=st.integers(0, 14))
    def allocate(self, count: int) -> None:
        free, cached = self.free, list(self.cached)
        if count > len(free) + len(cached):
            with pytest.raises(OutOfBlocks):
                self.pool.allocate(count)
            return
        taken = self.pool.allocate(count)
        evicted = cached[: max(0, count - len(free))]
        assert len(taken) == len(set(taken)) == count
        assert set(taken) <= free | set(evicted), "a block in use, or a younger cached one, was taken"
        assert set(evicted) <= set(taken), "free blocks go before cached ones, the least recently used before the others"
        for block in evicted:
            del self.cached[block], self.digest_of[block]
        for block in taken:
            self.references[block] = 1
        self.owners.append(taken)

    @precondition(lambda self: self.owners)
    @rule(which=pick, last_first=st.booleans())
    def release(self, which: int, last_first: bool) -> None:
        table = self.owners.pop(which % len(self.owners))
        order = table[::-1] if last_first else table
        self.pool.release(order)
        for block in order:
            self.references[block] -= 1
            if self.references[block] == 0 and block in self.digest_of:
                self.cached[block] = None

    @precondition(lambda self: any(self.owners))
    @rule(which=pick, index=pick, digest=st.sampled_from(DIGESTS))
    def publish(self, which: int, index: int, digest: bytes) -> None:
        tables = [table for table in self.owners if table]
        table = tables[which % len(tables)]
        block = table[index % len(table)]
        self.pool.publish(block, digest)
        if block not in self.digest_of and digest not in self.digest_of.values():
            self.digest_of[block] = digest

    @rule(digests=st.lists(st.sampled_from(DIGESTS), max_size=4, unique=True))
    def find_and_share(self, digests: list[bytes]) -> None:
        block_of = {digest: block for block, digest in self.digest_of.items()}
        expected = []
        for digest in digests:
            if digest not in block_of:
                break
            expected.append(block_of[digest])
        found = self.pool.find(digests)
        assert found == expected
        before = self.pool.available
        newly_used = self.pool.cached_among(found)
        self.pool.share(found)
        assert before - self.pool.available == newly_used
        for block in found:
            self.references[block] += 1
            self.cached.pop(block, None)
        self.owners.append(found)

    @precondition(lambda self: 0 in self.references)
    @rule(which=pick)
    def misuse(self, which: int) -> None:
        unused = [block for block, count in enumerate(self.references) if count == 0]
        block = unused[which % len(unused)]
        with pytest.raises(ValueError, match="released more often"):
            self.pool.release([block])
        with pytest.raises(ValueError, match="not in use"):
            self.pool.publish(block, DIGESTS[0])
        if block in self.free:
            with pytest.raises(ValueError, match="free and cannot be shared"):
                self.pool.share([block])

    @invariant()
    def agrees(self) -> None:
        self.pool.check_integrity(self.owners)
        assert self.pool.available == len(self.free) + len(self.cached)
        assert self.pool.used == sum(count > 0 for count in self.references)
        for digest in DIGESTS:
            known = [block for block, other in self.digest_of.items() if other == digest]
            assert self.pool.find([digest]) == known

    def teardown(self) -> None:
        for table in getattr(self, "owners", []):
            self.pool.release(table)
        if hasattr(self, "pool"):
            assert self.pool.used == 0
            assert self.pool.available == self.pool.blocks


TestPool = PoolMachine.TestCase
TestPool.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


@given(st.lists(st.integers(0, 2**31), min_size=1, max_size=8), st.lists(st.integers(0, 2**31), min_size=1, max_size=8))
def test_a_hash_depends_on_tokens_and_on_all_before(first: list[int], second: list[int]) -> None:
    parent = chain_hash(ROOT_HASH, first)
    assert chain_hash(ROOT_HASH, list(first)) == parent
    assert (chain_hash(ROOT_HASH, second) == parent) == (first == second)
    assert chain_hash(parent, second) != chain_hash(ROOT_HASH, second)


@pytest.mark.parametrize(("blocks", "block_tokens"), [(0, 4), (4, 0), (-1, 4)])
def test_an_empty_pool_is_refused(blocks: int, block_tokens: int) -> None:
    with pytest.raises(ValueError, match="at least one block"):
        BlockPool(blocks, block_tokens)


def test_integrity_notices_tables_that_disagree() -> None:
    pool = BlockPool(4, 4)
    table = pool.allocate(2)
    pool.check_integrity([table])
    with pytest.raises(AssertionError, match="disagree"):
        pool.check_integrity([table, table])
    with pytest.raises(AssertionError, match="disagree"):
        pool.check_integrity([])
