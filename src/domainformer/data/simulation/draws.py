"""Random numbers that are a function of what they are for.

A draw is a hash of (seed, name, entity, event), so that an event is the same whatever else is
simulated beside it, in whatever order and in blocks of whatever size. No generator has a state::

    uniform("amount", entity=7, event=3)  ──SplitMix64──▶  0.4217…

Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014), the finaliser
of section 4; Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011), the idea.
"""

from __future__ import annotations

import hashlib

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Draws:
    """Draws of one simulated world.

    Args:
        seed: Any integer.
        world: Separates worlds of the same seed.

    Example:
        >>> draws = Draws(0, "finance")
        >>> first = draws.uniform("amount", np.arange(1000))
        >>> bool((first[5:10] == draws.uniform("amount", np.arange(5, 10))).all())
        True
        >>> bool(abs(first.mean() - 0.5) < 0.03)
        True
    """

    def __init__(self, seed: int, world: str) -> None:
        self._prefix = f"{seed}/{world}/"

    def uniform(self, name: str, *indices: np.ndarray) -> np.ndarray:
        """Uniform numbers in (0, 1), float64 of the indices' common shape.

        Args:
            name: What the draw is for; other names give independent draws.
            *indices: Integer arrays, one or more, that are broadcast together.
        """
        return to_unit(self.hash(name, *indices))

    def hash(self, name: str, *indices: np.ndarray) -> np.ndarray:
        """The 64 random bits behind :meth:`uniform`."""
        digest = hashlib.blake2b((self._prefix + name).encode(), digest_size=8).digest()
        state = np.full((1,) * indices[0].ndim, int.from_bytes(digest, "little"), dtype=np.uint64)
        for index in indices:
            state = mix(state, index)
        return state


def mix(state: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Stir an integer index into 64-bit states (arrays that broadcast together)."""
    mixed: np.ndarray = state + (index.astype(np.uint64) + np.uint64(1)) * _GOLDEN
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def to_unit(bits: np.ndarray) -> np.ndarray:
    """64 random bits as a number strictly between 0 and 1."""
    unit: np.ndarray = (bits >> np.uint64(11)) * 2.0**-53 + 2.0**-54
    return unit


def bell(unit: np.ndarray) -> np.ndarray:
    """Uniform to logistic with standard deviation 1: a normal's bell with somewhat heavier tails.

    Example:
        >>> bell(np.array([0.5])).tolist()
        [0.0]
    """
    scaled: np.ndarray = np.log(unit / (1 - unit)) * (np.sqrt(3) / np.pi)
    return scaled


def zipf_rank(unit: np.ndarray, size: np.ndarray | int) -> np.ndarray:
    """Uniform to a rank 0 … size − 1 whose probability falls as 1 / (rank + 1).

    Example:
        >>> zipf_rank(np.array([0.01, 0.5, 0.99]), 1000).tolist()
        [0, 30, 933]
    """
    ranks: np.ndarray = np.floor((size + 1.0) ** unit).astype(np.int64) - 1
    clipped: np.ndarray = np.minimum(ranks, np.asarray(size) - 1)
    return clipped
