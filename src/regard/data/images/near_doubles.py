"""Images that are nearly the same: saved again, of another size, brighter or darker, mirrored or upside down.

Perceptual hashes (phash of the library ImageHash) give candidates. A pair of these is named where the fine detail of
both is the same: the correlation of thumbnails without what is smooth in them, after one of them has taken the other's
grey values by rank, which undoes any change of brightness, also one that made parts all white. In a set whose images
are all alike, such as written digits, a pair must stand out, too: to a correlation of 1 it misses several times less
than the next image that is like one of them.
`benchmarks/near_doubles.py` measures what this finds, and what it names wrongly.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8
from PIL import Image
from torch import Tensor

SIDE = 32  # pixels of a thumbnail
SMOOTH = 2.0  # standard deviation in pixels of a thumbnail; coarser structure is what alike scenes share
CANDIDATE = 18  # of a hash's 64 bits differ, at most: unrelated photographs differ in 32
MAYBE = 0.4  # least correlation before brightness is matched
ALIKE = 0.9  # least correlation of near-doubles
GAP = 3.0  # times what is missing to a correlation of 1 that is missing for the next image, at least
FLOOR = 0.004  # of what is missing: less is chance
LEAST_SIDE = 16  # pixels; smaller images have no detail that could tell them apart
LEAST_DETAIL = 1.0  # grey values, of a thumbnail without what is smooth in it: a plain area is like any other
MOST = 20_000  # images that are compared; of more, so many, evenly spaced
BLOCK = 512


@dataclass(frozen=True)
class Look:
    """What is kept of an image to compare it with others."""

    thumbnail: UInt8[np.ndarray, "32 32"]
    """Grey."""
    bits: Bool[np.ndarray, "4 64"]
    """Its perceptual hash, and those of the image mirrored, upside down, and both."""
    comparable: bool
    """Whether it is large enough."""


def look_of(image: UInt8[Tensor, "channels height width"]) -> Look:
    """The look of a grey or colour image."""
    from imagehash import phash

    pixels = image.permute(1, 2, 0).contiguous().numpy()
    picture = Image.fromarray(pixels[:, :, 0] if image.shape[0] == 1 else pixels).convert("L")
    picture = picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=3)
    thumbnail = np.asarray(picture)
    bits = np.stack([phash(Image.fromarray(turned)).hash.ravel() for turned in _turns(thumbnail)])
    return Look(thumbnail, bits, min(image.shape[1:]) >= LEAST_SIDE)


def near_doubles(looks: Sequence[Look]) -> list[tuple[int, int]]:
    """The pairs (i, j), i < j, of nearly the same images, sorted; the same images are among them."""
    kept = np.array([index for index, look in enumerate(looks) if look.comparable], dtype=np.int64)
    if len(kept) > MOST:
        kept = kept[np.arange(MOST) * len(kept) // MOST]
    if len(kept) < 2:
        return []
    thumbnails = np.stack([looks[index].thumbnail for index in kept]).astype(np.float32)
    detail, strength = _detail(thumbnails)
    bits = np.stack([looks[index].bits for index in kept])
    pairs, missing = [np.zeros((2, 0), dtype=np.int64)], [np.zeros(0, dtype=np.float32)]
    for turn, (first, second) in _candidates(bits):
        has_detail = (strength[first] >= LEAST_DETAIL) & (strength[second] >= LEAST_DETAIL)
        first, second = first[has_detail], second[has_detail]
        for start in range(0, len(first), 4096):
            a, b = first[start : start + 4096], second[start : start + 4096]
            close = np.einsum("nhw,nhw->n", detail[a], _turned(detail[b], turn)) >= MAYBE
            a, b = a[close], b[close]
            lacks = 1 - _alike(thumbnails[a], _turned(thumbnails[b], turn))
            near = lacks <= GAP * (1 - ALIKE)
            pairs.append(np.stack([a[near], b[near]]))
            missing.append(lacks[near])
    all_pairs, all_missing = np.concatenate(pairs, axis=1), np.concatenate(missing)
    if not len(all_missing):
        return []
    order = np.lexsort((all_missing, *all_pairs))
    # A pair whose images are like each other in several turns counts once, by the turn in which least is missing.
    _, once = np.unique(all_pairs[:, order], axis=1, return_index=True)
    first, second = kept[_standing_out(all_pairs[:, order[once]], all_missing[order[once]], len(kept))]
    return sorted(zip(first.tolist(), second.tolist(), strict=True))


def _standing_out(
    pairs: Int64[np.ndarray, "2 pairs"], missing: Float32[np.ndarray, " pairs"], count: int
) -> Int64[np.ndarray, "2 chosen"]:
    """The pairs that miss at most 1 - ALIKE, and for both of whose images the next one misses GAP times as much."""
    images, both = pairs.reshape(-1), np.tile(missing, 2)
    order = np.lexsort((both, images))
    images, sorted_missing = images[order], np.maximum(both[order], FLOOR)
    following = np.append(np.where(images[1:] == images[:-1], sorted_missing[1:], np.inf), np.inf)[: len(images)]
    ends = (sorted_missing <= 1 - ALIKE) & (following >= GAP * sorted_missing)
    most = np.zeros(count, dtype=np.float32)  # that a near-double of each image misses
    np.maximum.at(most, images[ends], sorted_missing[ends])
    return pairs[:, np.maximum(missing, FLOOR) <= most[pairs].min(axis=0)]


def _turns(images: np.ndarray) -> list[np.ndarray]:
    return [_turned(images, turn) for turn in range(4)]


def _turned(images: np.ndarray, turn: int) -> np.ndarray:
    """(..., height, width) as they are, mirrored, upside down, or both, by the number of the turn."""
    return images[..., :: 1 - 2 * (turn >> 1), :: 1 - 2 * (turn & 1)]


def _candidates(
    bits: Bool[np.ndarray, "images 4 64"],
) -> Iterator[tuple[int, tuple[Int64[np.ndarray, " pairs"], Int64[np.ndarray, " pairs"]]]]:
    """(turn, (i, j)) of pairs i < j whose hashes are close where j is turned."""
    signs = np.where(bits, np.float32(1), np.float32(-1))
    least = signs.shape[2] - 2 * CANDIDATE  # the product of two hashes is 64 - 2 · the bits that differ
    for turn in range(4):
        for start in range(0, len(signs), BLOCK):
            close = signs[start : start + BLOCK, 0] @ signs[start:, turn].T >= least
            first, second = np.nonzero(np.triu(close, 1))
            yield turn, (first + start, second + start)


def _detail(
    images: Float32[np.ndarray, "images 32 32"],
) -> tuple[Float32[np.ndarray, "images 32 32"], Float32[np.ndarray, " images"]]:
    """Images without what is smooth in them, of mean 0 and norm 1; and the root of their mean square before that."""
    from scipy.ndimage import gaussian_filter

    rest = images - gaussian_filter(images, (0, SMOOTH, SMOOTH))
    rest -= rest.mean(axis=(1, 2), keepdims=True)
    strength = np.sqrt(np.square(rest).mean(axis=(1, 2)))
    return rest / np.maximum(strength * SIDE, 1e-3)[:, None, None], strength


def _alike(
    a: Float32[np.ndarray, "pairs 32 32"], b: Float32[np.ndarray, "pairs 32 32"]
) -> Float32[np.ndarray, " pairs"]:
    """The correlation of detail, -1 to 1, where one image has taken the grey values of the other; the larger one."""
    if not len(a):
        return np.zeros(0, dtype=np.float32)
    correlations = [
        np.einsum("nhw,nhw->n", _detail(_by_rank(one, other))[0], _detail(other)[0]) for one, other in ((a, b), (b, a))
    ]
    return np.maximum(*correlations)


def _by_rank(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Images whose k-th darkest pixel has the grey value of the other's k-th darkest."""
    order = np.argsort(images.reshape(len(images), -1), axis=1, kind="stable")
    values = np.empty_like(images).reshape(len(images), -1)
    np.put_along_axis(values, order, np.sort(others.reshape(len(others), -1), axis=1), axis=1)
    return values.reshape(images.shape)
