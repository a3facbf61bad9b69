"""Reads drawn scenes and turns them into training batches."""

import glob
import os
from dataclasses import dataclass

import numpy as np
import torch

import settings as S
import tasks
from tokenizer import EOS

CHARS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
CHAR_INDEX = {ord(c): i + 1 for i, c in enumerate(CHARS)}
MAX_SHIFT = 8  # pixels


class Shard:
    def __init__(self, path, vae=None):
        self.path = path
        for file in glob.glob(os.path.join(path, "*.npy")):
            name = os.path.basename(file)[:-4]
            big = name in ("pixels", "mask")
            setattr(self, name, np.load(file, mmap_mode="r" if big else None))
        if vae is not None and not hasattr(self, "codes"):
            self.codes = self._encode(vae)
            np.save(os.path.join(path, "codes.npy"), self.codes)

    def _encode(self, vae):
        bits = np.unpackbits(self.mask, axis=2).reshape(-1, S.MASK_SIZE, S.MASK_SIZE)
        with torch.no_grad():
            codes = [vae.codes(torch.from_numpy(part).float()) for part in np.array_split(bits, 64)]
        return torch.cat(codes).numpy().astype(np.uint8).reshape(len(self.mask), S.MAX_SHAPES, 16)

    def facts(self, i, offset):
        """Facts of picture i after a shift by offset (y, x)."""
        move = (*offset, *offset)
        objects = [{"shape": S.SHAPES[self.shape[i, j]], "color": S.COLOR_NAMES[self.color[i, j]],
                    "box": tuple(float(v) + m for v, m in zip(self.box[i, j], move)), "codes": self.codes[i, j]}
                   for j in range(self.shapes[i])]
        text = bytes(c for c in self.text[i] if c).decode()
        return tasks.Facts(objects, S.BACKGROUNDS[self.background[i]], text)


class Pictures:
    """All shards that are finished so far; new ones join when refresh() is called."""

    def __init__(self, folder, vae):
        self.folder, self.vae, self.shards = folder, vae, {}
        self.refresh()

    def refresh(self, most=4):
        paths = [p for p in sorted(glob.glob(os.path.join(self.folder, "shard*"))) if not p.endswith(".tmp")]
        fresh = [p for p in paths if p not in self.shards]
        for path in fresh[: most if self.shards else None]:
            self.shards[path] = Shard(path, self.vae)
        self.list = list(self.shards.values())

    def __len__(self):
        return sum(len(s.shapes) for s in self.list)

    def pick(self, rng, count):
        """[(shard, index)]"""
        which = rng.integers(len(self.list), size=count)
        return [(self.list[w], int(rng.integers(len(self.list[w].shapes)))) for w in which]


def shifted(shard, i, rng):
    """Pixels moved by some whole pixels, edges repeated, and the offset (y, x) as fractions."""
    boxes = np.concatenate([shard.box[i, : shard.shapes[i]], shard.char_box[i][shard.text[i] > 0]]) * S.IMAGE_SIZE
    low, high = boxes[:, :2].min(0, initial=MAX_SHIFT), S.IMAGE_SIZE - boxes[:, 2:].max(0, initial=0)
    if min(*low, *high) <= 0:  # what the border cuts off must stay there
        low = high = (0, 0)
    dy, dx = (int(rng.integers(-max(0, min(MAX_SHIFT, int(a))), max(0, min(MAX_SHIFT, int(b))) + 1))
              for a, b in zip(low, high))
    pixels = shard.pixels[i]
    if dy or dx:
        size = S.IMAGE_SIZE
        rows = np.clip(np.arange(size) - dy, 0, size - 1)
        columns = np.clip(np.arange(size) - dx, 0, size - 1)
        pixels = pixels[rows][:, columns]
    return pixels, (dy / S.IMAGE_SIZE, dx / S.IMAGE_SIZE)


CENTERS = (np.arange(S.GRID) + 0.5) / S.GRID


FINE = 7  # parts of a patch a side: two pixels each
FINE_CENTERS = (np.arange(S.GRID * FINE) + 0.5) / (S.GRID * FINE)


def outline(fine, box, bits):
    """Sets the parts of `fine` that a mask over a box covers."""
    mask = np.unpackbits(bits).reshape(S.MASK_SIZE, S.MASK_SIZE)
    at, rows = [], []
    for low, high in ((box[0], box[2]), (box[1], box[3])):
        inside = np.flatnonzero((FINE_CENTERS >= low) & (FINE_CENTERS < high))
        at.append(inside)
        row = ((FINE_CENTERS[inside] - low) / (high - low) * S.MASK_SIZE).astype(int)
        rows.append(np.minimum(row, S.MASK_SIZE - 1))
    fine[np.ix_(*at)] = np.maximum(fine[np.ix_(*at)], mask[np.ix_(*rows)])


# what dense_targets gives
DENSE = ("shape", "color", "char", "box", "background", "parts", "place", "small", "reads", "text")
SMALL = 16  # a side of the mask over its box that every patch of an object tells


def among(facts):
    """Of each object how many share its name and its shape, and its place among all from the left and among its
    shape from the top: what captions and lists of boxes hang on. All begin at 0."""
    names, shapes = [facts.label(o) for o in facts.objects], [o["shape"] for o in facts.objects]
    left = sorted(range(len(names)), key=lambda j: facts.objects[j]["box"][1] + facts.objects[j]["box"][3])
    down = sorted(range(len(names)), key=lambda j: facts.objects[j]["box"][:2])
    return [(names.count(names[j]) - 1, shapes.count(shapes[j]) - 1, left.index(j),
             [k for k in down if shapes[k] == shapes[j]].index(j)) for j in range(len(names))]


def dense_targets(shard, i, offset):
    """For each patch: shape, colour, box and small mask of the object that covers its centre, and what it is among
    the others; the character there, and the whole text where there is one; the background, which is the same for all;
    and which of its FINE x FINE parts shapes cover."""
    shape = np.zeros((S.GRID, S.GRID), np.int64)
    color = np.zeros_like(shape)
    char = np.zeros_like(shape)
    box = np.zeros((S.GRID, S.GRID, 4), np.float32)
    fine = np.zeros((S.GRID * FINE, S.GRID * FINE), np.float32)
    place = np.zeros((S.GRID, S.GRID, 4), np.int64)
    small = np.zeros((S.GRID, S.GRID, SMALL * SMALL), np.float32)
    places = among(shard.facts(i, offset))
    move = np.array([*offset, *offset], np.float32)

    def covered(b):
        return np.ix_((CENTERS >= b[0]) & (CENTERS < b[2]), (CENTERS >= b[1]) & (CENTERS < b[3]))

    for j in range(shard.shapes[i]):
        b = shard.box[i, j] + move
        at = covered(b)
        shape[at], color[at], box[at] = shard.shape[i, j] + 1, shard.color[i, j] + 1, b
        place[at] = places[j]
        step = S.MASK_SIZE // SMALL
        bits = np.unpackbits(shard.mask[i, j]).reshape(SMALL, step, SMALL, step)
        small[at] = bits.mean((1, 3)).reshape(-1)
        outline(fine, b, shard.mask[i, j])
    text = np.array([CHAR_INDEX.get(int(c), 0) for c in shard.text[i]], np.int64)
    for j, c in enumerate(shard.text[i]):
        if c:
            # A character is about one patch wide: take in what lies half a patch around it.
            b = shard.char_box[i, j] + move
            char[covered(b + np.array([-0.02, -0.01, 0.02, 0.01]))] = CHAR_INDEX[int(c)]
    parts = fine.reshape(S.GRID, FINE, S.GRID, FINE).transpose(0, 2, 1, 3).reshape(S.GRID, S.GRID, FINE * FINE)
    background = np.full_like(shape, shard.background[i])
    return shape, color, char, box, background, parts, place, small, char > 0, np.tile(text, (S.GRID, S.GRID, 1))


def dense_batch(pictures, rng, count):
    picked = pictures.pick(rng, count)
    pixels, targets, offsets = [], [], []
    for shard, i in picked:
        p, offset = shifted(shard, i, rng)
        pixels.append(p)
        offsets.append(offset)
        targets.append(dense_targets(shard, i, offset))
    batch = {"pixels": torch.from_numpy(np.stack(pixels))}
    for name, column in zip(DENSE, zip(*targets)):
        stacked = np.stack(column)
        batch[name] = torch.from_numpy(stacked.reshape(count, S.IMAGE_TOKENS, *stacked.shape[3:]))
    return batch, picked, offsets


@dataclass
class Forks:
    """Tokens on which the rest of an answer hangs."""

    loc: int
    words: set

    @classmethod
    def of(cls, tokenizer):
        counts = [*tasks.NUMBERS, "a", "an", "and", ",", ";"]
        pieces = [tokenizer.sp.encode(form) for word in counts for form in (word, f" {word}")]
        return cls(tokenizer.loc, {EOS} | {ids[0] for ids in pieces if len(ids) == 1})


def sequence(tokenizer, task, facts, rng, most):
    """(ids of the prompt, ids of the answer and <eos>), together at most `most` but for the last"""
    while True:
        prompt, suffix = tasks.sample(tasks.fitting(task, facts, rng), facts, rng)
        head = tokenizer.prompt(prompt)
        tail = tokenizer.sp.encode(suffix) + [EOS]
        if len(head) + len(tail) - 1 <= most:
            return head, tail
        task = "answer"


def stakes(tail, forks):
    """What hangs on each token. Where an answer can fork (whether it goes on, how many it says there are, which
    object a box begins with) all that follows does; most others follow from what was said."""
    loc = [forks.loc <= t < forks.loc + S.LOC_BINS for t in tail]
    return [3.0 if t in forks.words or here and not before else 2.0 if before and not here else 1.0
            for t, here, before in zip(tail, loc, [False, *loc])]


def chunk(sequences, pictures, forks):
    """Sequences of about one length, padded to the longest: what the model reads, and where its logits count."""
    width = max(len(head) + len(tail) - 1 for head, tail in sequences)
    ids = np.zeros((len(sequences), width), np.int64)
    rows, targets, weights = [], [], []
    for n, (head, tail) in enumerate(sequences):
        ids[n, : len(head) + len(tail) - 1] = head + tail[:-1]
        first = n * width + len(head) - 1
        rows += range(first, first + len(tail))
        targets += tail
        weights += [w * len(tail) ** -0.5 for w in stakes(tail, forks)]
    prefix = [len(head) for head, _ in sequences]
    arrays = {"ids": ids, "prefix": prefix, "picture": pictures, "rows": rows, "targets": targets}
    return {name: torch.as_tensor(array) for name, array in arrays.items()} | {"weights": torch.tensor(weights)}


def prompt_batch(pictures, tokenizer, rng, c):
    """A batch for the whole model: every picture with several prompts, in chunks of like length."""
    batch, picked, offsets = dense_batch(pictures, rng, c.pictures)
    names, weights = zip(*c.task_weights.items())
    count = c.pictures * c.prompts
    chosen = rng.choice(len(names), size=count, p=np.array(weights) / sum(weights))
    sequences = []
    for n in range(count):
        shard, i = picked[n // c.prompts]
        facts = shard.facts(i, offsets[n // c.prompts])
        sequences.append(sequence(tokenizer, names[chosen[n]], facts, rng, c.text_tokens))
    forks = Forks.of(tokenizer)
    order = sorted(range(count), key=lambda n: sum(map(len, sequences[n])))
    batch["chunks"] = [chunk([sequences[n] for n in part], [n // c.prompts for n in part], forks)
                       for part in np.array_split(order, c.chunks)]
    return batch
