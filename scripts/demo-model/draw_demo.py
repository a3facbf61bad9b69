"""Draws candidates for the pictures of demo/: large, held-out scenes with something of everything.

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


def interesting(scene):
    """Several shapes, two of a kind, a printed number, and a pattern behind."""
    kinds = [s.shape for s in scene.shapes]
    return (len(kinds) >= 3 and len(set(kinds)) == len(kinds) - 1 and scene.text is not None
            and scene.text.text.isdigit() and len(scene.text.text) > 1
            and scene.background in ("striped", "checkered", "dotted"))


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
        scene = scenes.random_scene(rng, text_chance=1)
        if not interesting(scene):
            continue
        file = f"shapes-{len(records):02d}.png"
        Image.fromarray(scenes.draw(scene, args.size, 3)).save(os.path.join(args.out, file), optimize=True)
        record = draw_eval.truth(scene, file, rng)
        labels = list(dict.fromkeys(s.label for s in scene.shapes))
        record["detect"], record["segment"] = labels[:2], labels[:1]
        record["questions"] = [{"kind": kind, "question": question, "answer": answer}
                               for kind, question, answer in tasks.Facts.of_scene(scene).questions() if answer != "0"]
        records.append(record)
    draw_eval.write_truth(args.out, records)


if __name__ == "__main__":
    main()
