"""The KV block pool with a block-hash prefix cache.

A block is free, in use (one or more references), or cached: unreferenced but still findable by the hash of its tokens and of
all tokens before it. Cached blocks are taken for new work least recently used first. A block in use is never taken.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from hashlib import blake2b

import numpy as np

ROOT_HASH = b"setpoint"


def chain_hash(parent: bytes, tokens: Sequence[int]) -> bytes:
    """Hash of a full block given the hash of the block before it (``ROOT_HASH`` for the first)."""
    return blake2b(np.asarray(tokens, dtype=np.int64).tobytes(), digest_size=16, key=parent).digest()


class OutOfBlocks(Exception):
    """More blocks were asked for than are free or cached."""


class BlockPool:
    """Owns ``blocks`` block numbers; modifies only itself, never the cache memory."""

    def __init__(self, blocks: int, block_tokens: int) -> None:
        if blocks < 1 or block_tokens < 1:
            raise ValueError(f"a pool needs at least one block of one token, found {blocks} of {block_tokens}")
        self.blocks = blocks
        self.block_tokens = block_tokens
        self._free: deque[int] = deque(range(blocks))
        self._references = [0] * blocks
        self._hash_of: list[bytes | None] = [None] * blocks
        self._block_of: dict[bytes, int] = {}
        self._cached: OrderedDict[int, None] = OrderedDict()
        self.version = 0  # Another number whenever what can be found has changed.

    @property
    def available(self) -> int:
        """Blocks that ``allocate`` could give out now."""
        return len(self._free) + len(self._cached)

    @property
    def used(self) -> int:
        """Blocks referenced by at least one sequence."""
        return self.blocks - self.available

    def allocate(self, count: int) -> list[int]:
        """Take ``count`` blocks with one reference each, evicting cached ones if need be; all or ``OutOfBlocks``."""
        if count > self.available:
            raise OutOfBlocks(f"{count} blocks asked for, {self.available} available")
        taken = [self._free.popleft() if self._free else self._evict() for _ in range(count)]
        for block in taken:
            self._references[block] = 1
        return taken

    def release(self, blocks: Iterable[int]) -> None:
        """Give up one reference of each block. Findable blocks become cached, the others free. Raises on a double free."""
        for block in blocks:
            if self._references[block] <= 0:
                raise ValueError(f"block {block} released more often than it was taken")
            self._references[block] -= 1
            if self._references[block] == 0:
                if self._hash_of[block] is None:
                    self._free.append(block)
                else:
                    self._cached[block] = None

    def find(self, hashes: Iterable[bytes]) -> list[int]:
        """Blocks of the longest run of ``hashes`` that is known, from the first; takes no reference."""
        found = []
        for digest in hashes:
            block = self._block_of.get(digest)
            if block is None:
                break
            found.append(block)
        return found

    def found(self, hashes: Sequence[bytes], limit: int) -> int:
        """How many blocks ``find`` would give for the first ``limit`` of ``hashes``."""
        block_of = self._block_of
        for index in range(limit):
            if hashes[index] not in block_of:
                return index
        return limit

    def share(self, blocks: Iterable[int]) -> None:
        """Take one more reference of each block. Raises ``ValueError`` for one that is neither in use nor cached."""
        for block in blocks:
            if self._references[block] == 0:
                if block not in self._cached:
                    raise ValueError(f"block {block} is free and cannot be shared")
                del self._cached[block]
            self._references[block] += 1

    def cached_among(self, blocks: Iterable[int]) -> int:
        """How many of ``blocks`` are cached: sharing them makes that many fewer available."""
        return sum(self._references[block] == 0 for block in blocks)

    def publish(self, block: int, digest: bytes) -> None:
        """Make a full, computed block in use findable. The first block with a hash stays the one that is found."""
        if self._references[block] <= 0:
            raise ValueError(f"block {block} is not in use and cannot be published")
        if self._hash_of[block] is None and digest not in self._block_of:
            self._hash_of[block] = digest
            self._block_of[digest] = block
            self.version += 1

    def _evict(self) -> int:
        block, _ = self._cached.popitem(last=False)
        digest = self._hash_of[block]
        assert digest is not None, "a cached block always has a hash"
        del self._block_of[digest]
        self._hash_of[block] = None
        self.version += 1
        return block

    def check_integrity(self, owned: Iterable[Sequence[int]] | None = None) -> None:
        """Raise ``AssertionError`` if the pool contradicts itself, or the block tables of all sequences in ``owned``."""
        free, cached = set(self._free), set(self._cached)
        assert len(free) == len(self._free), "a block is free twice"
        assert not free & cached, "a block is both free and cached"
        for block, references in enumerate(self._references):
            assert references >= 0, f"block {block} has {references} references"
            assert (references == 0) == (block in free or block in cached), f"block {block} is lost"
            digest = self._hash_of[block]
            assert (digest is not None) or block not in cached, f"cached block {block} cannot be found"
            assert digest is None or self._block_of.get(digest) == block, f"block {block} is found under another number"
        assert len(self._block_of) == sum(digest is not None for digest in self._hash_of), "a hash points nowhere"
        if owned is not None:
            counted = [0] * self.blocks
            for table in owned:
                for block in table:
                    counted[block] += 1
            assert counted == self._references, "references and block tables disagree"
