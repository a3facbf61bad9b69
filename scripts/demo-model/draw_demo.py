"""Draws candidates for demo/shapes.png, which shows what people ask it for first, and a number.

    python draw_demo.py --out DIR --count 40
    node scripts/demo-model/evaluate.mjs --pictures DIR --each     prints which come out best
"""

import argparse
import os

import numpy as np
from PIL import Image

import draw_eval
import scenes
import tasks

NAMES = [("purple", "ring"), ("red", "circle"), ("blue", "square"), ("black", "heart")]
NUMBER = "359"


def clear(scene):
    """Nobody can doubt what is left of what, and the number is dark on light."""
    middles = sorted(shape.center[1] for shape in scene.shapes)
    box = scene.text.box
    return (min(b - a for a, b in zip(middles, middles[1:])) > 0.06 and max(scene.text.rgb) < 60
            and min(box[:2]) > 0.03 and max(box[2:]) < 0.97)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True)
    parser.add_argument("--seed", type=int, default=70001)
    parser.add_argument("--size", type=int, default=448)
    parser.add_argument("--count", type=int, default=40)
    args = parser.parse_args()
    rng = np.random.default_rng([args.seed])
    os.makedirs(args.out, exist_ok=True)
    records = []
    while len(records) < args.count:
        background = ("striped", "checkered", "dotted")[rng.integers(3)]
        order = [NAMES[i] for i in rng.permutation(len(NAMES))]
        scene = scenes.scene_of(rng, order, NUMBER, background)
        if scene is None or not clear(scene):
            continue
        file = f"shapes-{len(records):02d}.png"
        Image.fromarray(scenes.draw(scene, args.size, 3)).save(os.path.join(args.out, file), optimize=True)
        record = draw_eval.truth(scene, file, rng, long=True)
        record["detect"], record["segment"] = [s.label for s in scene.shapes[:2]], [scene.shapes[0].label]
        record["questions"] = [{"kind": kind, "question": question, "answer": answer}
                               for kind, question, answer in tasks.Facts.of_scene(scene).questions() if answer != "0"]
        records.append(record)
    draw_eval.write_truth(args.out, records)


if __name__ == "__main__":
    main()
