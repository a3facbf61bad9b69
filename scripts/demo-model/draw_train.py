"""Draws training scenes into shards, forever or up to --shards: run it beside train.py.

A shard is one .npz-like folder of plain arrays, written under a temporary name and then renamed,
so that a reader never sees half a shard.
"""

import argparse
import os

import numpy as np

import scenes
import settings as S

SHARD = 4000  # pictures


def empty(count):
    return {
        "pixels": np.zeros((count, S.IMAGE_SIZE, S.IMAGE_SIZE, 3), np.uint8),
        "background": np.zeros(count, np.uint8),
        "shapes": np.zeros(count, np.uint8),  # how many
        "shape": np.zeros((count, S.MAX_SHAPES), np.uint8),
        "color": np.zeros((count, S.MAX_SHAPES), np.uint8),
        "box": np.zeros((count, S.MAX_SHAPES, 4), np.float32),  # y0, x0, y1, x1
        "mask": np.zeros((count, S.MAX_SHAPES, S.MASK_SIZE * S.MASK_SIZE // 8), np.uint8),  # bits
        "text": np.zeros((count, S.MAX_CHARS), np.uint8),  # ASCII, 0 = none
        "char_box": np.zeros((count, S.MAX_CHARS, 4), np.float32),
    }


def store(arrays, i, scene, pixels):
    arrays["pixels"][i] = pixels
    arrays["background"][i] = S.BACKGROUNDS.index(scene.background)
    arrays["shapes"][i] = len(scene.shapes)
    for j, shape in enumerate(scene.shapes):
        arrays["shape"][i, j] = S.SHAPES.index(shape.shape)
        arrays["color"][i, j] = S.COLOR_NAMES.index(shape.color)
        box, mask = scenes.visible(shape)
        arrays["box"][i, j] = box
        arrays["mask"][i, j] = np.packbits(mask.reshape(-1))
    if scene.text:
        for j, char in enumerate(scene.text.text):
            arrays["text"][i, j] = ord(char)
            arrays["char_box"][i, j] = scene.text.char_boxes[j]


def training_scene(rng):
    """Mostly scenes as they will be asked about; some that teach to count what looks alike, some that tiles show."""
    kind = rng.random()
    if kind < 0.5:
        return scenes.random_scene(rng, text_chance=0.95, light=0.85)
    if kind < 0.87:
        return scenes.random_scene(rng, text_chance=0.8, alike=0.75, same=0.75, light=0.85)
    return scenes.tile_scene(rng)


def draw_shard(path, seed, count=SHARD):
    rng = np.random.default_rng(seed)
    arrays = empty(count)
    for i in range(count):
        scene = training_scene(rng)
        # Two ways to the same size, so that the model does not depend on one resampling.
        if rng.random() < 0.7:
            pixels = scenes.draw(scene, S.IMAGE_SIZE, 2)
        else:
            pixels = scenes.shrink(scenes.draw(scene, 3 * S.IMAGE_SIZE, 1))
        store(arrays, i, scene, pixels)
    os.makedirs(path + ".tmp", exist_ok=True)
    for name, array in arrays.items():
        np.save(f"{path}.tmp/{name}.npy", array)
    os.rename(path + ".tmp", path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--step", type=int, default=1,
                        help="run several processes: --first 0 --step 2, --first 1 --step 2")
    parser.add_argument("--shards", type=int, default=60, help="stop before this shard number")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    for number in range(args.first, args.shards, args.step):
        path = os.path.join(args.out, f"shard{number:04d}")
        if not os.path.isdir(path):
            draw_shard(path, [args.seed, number])
