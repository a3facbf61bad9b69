"""Draws held-out pictures with their truth: PNG files and truth.json.

    python draw_eval.py --out DIR --count 200 --seed 90001

Training scenes are seeded [seed, shard]; any other seed here gives scenes that were never trained on.
"""

import argparse
import base64
import json
import os

import numpy as np
from PIL import Image

import scenes
import settings as S
import tasks


def round_box(box):
    return [round(float(v), 5) for v in box]


def truth(scene, file, rng, long=False):
    facts = tasks.Facts.of_scene(scene)
    by_kind = {}
    for kind, question, answer in facts.questions():
        # "0" is the answer to most questions that one could ask: ask about what is there.
        if not (kind == "count" and answer == "0"):
            by_kind.setdefault(kind, []).append((question, answer))
    questions = []
    for kind, pairs in by_kind.items():
        for i in rng.permutation(len(pairs))[: 2 if kind == "count" else 1]:
            questions.append({"kind": kind, "question": pairs[i][0], "answer": pairs[i][1]})
    objects = [{"label": s.label, "shape": s.shape, "box": round_box(s.box),
                # 64 x 64 bits over the box, row-major, most significant bit first
                "mask": base64.b64encode(np.packbits(scenes.outline_mask(s.outline) > 127)).decode()}
               for s in scene.shapes]
    return {
        "file": file, "caption": facts.caption(), "text": facts.text, "objects": objects,
        "detect": tasks.sample_labels(facts, rng, 3, long),
        "segment": tasks.sample_labels(facts, rng, 1, long),
        "questions": questions,
    }


def write_truth(folder, records):
    with open(os.path.join(folder, "truth.json"), "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(r, separators=(",", ":")) for r in records) + "\n]\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=90001)
    parser.add_argument("--size", type=int, default=S.IMAGE_SIZE)
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    rng = np.random.default_rng([args.seed])
    records = []
    for i in range(args.count):
        scene = scenes.random_scene(rng)
        file = f"{i:03d}.png"
        Image.fromarray(scenes.draw(scene, args.size, 2)).save(os.path.join(args.out, file), optimize=True)
        records.append(truth(scene, file, rng))
    write_truth(args.out, records)


if __name__ == "__main__":
    main()
