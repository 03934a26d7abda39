"""The block pool of ``engine/kv_blocks.py`` by counts: the same numbers after the same calls, without a number for every block.

A block is *named* if other requests may have its content too (a shared prefix, a trace's hash): it has a digest, and is
followed one by one. The others are *own*: nobody but their request can ever find them, so a request's own blocks are a number.
What the engine's pool does is done here in the same order: free blocks before cached ones, cached ones least recently used
first, of one request the last block first. ``tests/simulate/test_simulate_stretches.py`` runs both side by side.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from setpoint.engine.kv_blocks import OutOfBlocks


class CountedPool:
    """``blocks`` blocks of ``block_tokens`` tokens. Digests of named blocks are whole numbers of at least 0.

    ``version`` changes whenever what a *waiting* request can find may have changed, as the engine's does.
    """

    def __init__(self, blocks: int, block_tokens: int) -> None:
        if blocks < 1 or block_tokens < 1:
            raise ValueError(f"a pool needs at least one block of one token, found {blocks} of {block_tokens}")
        self.blocks = blocks
        self.block_tokens = block_tokens
        self.available = blocks
        self.version = 0
        self._free = blocks
        self.references: dict[int, int] = {}  # By digest, of named blocks that are in use and findable.
        # Least recently used first: digest -> 1, or -1 - request -> its own blocks.
        self._cached: OrderedDict[int, int] = OrderedDict()
        self._findable_own: set[int] = set()  # Keys of own blocks whose request waits: it may find them again.

    @property
    def used(self) -> int:
        """Blocks referenced by at least one request."""
        return self.blocks - self.available

    def allocate(self, count: int) -> None:
        """Take ``count`` blocks, evicting cached ones if need be; all or ``OutOfBlocks``."""
        if count > self.available:
            raise OutOfBlocks(f"{count} blocks asked for, {self.available} available")
        self.available -= count
        self._free -= count
        while self._free < 0:
            self._evict()

    def give_back(self, count: int) -> None:
        """Blocks that nobody can find become free."""
        self._free += count
        self.available += count

    def found(self, digests: Sequence[int]) -> int:
        """How many of ``digests``, from the first, are known without a gap."""
        references, cached = self.references, self._cached
        for index, digest in enumerate(digests):
            if digest not in references and digest not in cached:
                return index
        return len(digests)

    def cached_among(self, digests: Sequence[int]) -> int:
        """How many of these known blocks nobody refers to: sharing them makes that many fewer available.

        A number below 0 stands for a cached block of the request's own."""
        return sum(digest < 0 or digest in self._cached for digest in digests)

    def share(self, digests: Sequence[int]) -> None:
        """One more reference to each of these known blocks."""
        for digest in digests:
            if self._cached.pop(digest, 0):
                self.references[digest] = 1
                self.available -= 1
            else:
                self.references[digest] += 1

    def publish(self, digest: int) -> bool:
        """A request's block with this digest is computed: findable with one reference; False if another one is already."""
        if digest in self.references or digest in self._cached:
            return False
        self.references[digest] = 1
        self.version += 1
        return True

    def unshare(self, digests: Sequence[int]) -> None:
        """Give up one reference of each, last first: blocks without any become cached."""
        for digest in reversed(digests):
            left = self.references[digest] - 1
            if left:
                self.references[digest] = left
            else:
                del self.references[digest]
                self._cached[digest] = 1
                self.available += 1

    def own_cached(self, request: int) -> int:
        """How many own blocks of ``request`` are cached."""
        return self._cached.get(-1 - request, 0)

    def keep_own(self, request: int, count: int, *, returns: bool) -> None:
        """``count`` own blocks of a request that gives up its blocks become cached; ``returns``: it will look for them."""
        key = -1 - request
        kept = count - self._cached.get(key, 0)  # What it had computed again is there twice: one of the two is free.
        if kept < count:
            self.give_back(count - max(0, kept))
        if kept > 0:
            self._cached[key] = self._cached.get(key, 0) + kept
            self.available += kept
        if returns and key in self._cached:
            self._findable_own.add(key)
            self.version += 1

    def take_own(self, request: int) -> int:
        """All cached own blocks of ``request`` are in use again; how many they were."""
        key = -1 - request
        count = self._cached.pop(key, 0)
        self._findable_own.discard(key)
        self.available -= count
        return count

    def forget_own(self, request: int) -> None:
        """``request`` will never look for its own blocks again; they stay cached until they are evicted."""
        self._findable_own.discard(-1 - request)

    def _evict(self) -> None:
        key, count = next(iter(self._cached.items()))
        taken = min(count, -self._free)
        if taken == count:
            del self._cached[key]
        else:
            self._cached[key] = count - taken
        self._free += taken
        if key >= 0 or key in self._findable_own:
            self.version += 1

    def check_integrity(self) -> None:
        """Raise ``AssertionError`` if the sums contradict each other."""
        cached = sum(self._cached.values())
        assert self._free >= 0, "more blocks were taken than there are"
        assert self.available == self._free + cached, "available blocks are not those that are free or cached"
        assert 0 <= self.available <= self.blocks, "a block was lost or made"
        assert not self.references.keys() & self._cached.keys(), "a block is both in use and cached"
        assert all(count > 0 for count in self.references.values()), "a block without references is in use"
        assert len(self.references) <= self.used, "more named blocks in use than blocks"
