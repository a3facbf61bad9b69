"""Finds held-out scenes that the model gets entirely right and draws them large, for demo/.

    python draw_demo.py --model EXPORT --out demo --seed 70001
"""

import argparse
import json
import os

import numpy as np
import torch
from PIL import Image

import check_model
import draw_eval
import evaluate
import mask_vae
import scenes
import settings as S
import tasks
from tokenizer import Tokenizer


def interesting(scene):
    """Several shapes, one of them twice, a printed number, and a pattern behind."""
    labels = [s.label for s in scene.shapes]
    return (len(labels) >= 4 and len(set(labels)) == 3 and scene.text is not None
            and scene.text.text.isdigit() and len(scene.text.text) > 1
            and scene.background in ("striped", "checkered", "dotted"))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--seed", type=int, default=70001)
    parser.add_argument("--size", type=int, default=448)
    parser.add_argument("--count", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = check_model.load(args.model), Tokenizer(os.path.join(args.model, "tokenizer.model"))
    vae = mask_vae.load(os.path.join(args.model, "vae-oid.npz"))
    rng = np.random.default_rng([args.seed])
    os.makedirs(args.out, exist_ok=True)
    found = 0
    while found < args.count:
        scene = scenes.random_scene(rng, text_chance=1)
        if not interesting(scene):
            continue
        file = f"shapes-{found + 1}.png"
        path = os.path.join(args.out, file)
        Image.fromarray(scenes.draw(scene, args.size, 3)).save(path, optimize=True)
        facts = tasks.Facts.of_scene(scene)
        labels = list(dict.fromkeys(s.label for s in scene.shapes))
        record = draw_eval.truth(scene, file, rng)
        record["questions"] = [{"kind": k, "question": q, "answer": a} for k, q, a in facts.questions()
                               if k in ("count", "color", "position", "text", "relation") and a != "0"]
        record["detect"] = record["segment"] = labels
        scores = evaluate.run(model, tokenizer, vae, [record], args.out)
        if min(scores.values()) < 0.8:
            continue
        found += 1
        print(json.dumps({k: record[k] for k in ("file", "caption", "text", "detect", "questions")}, indent=1))
        print({k: round(float(v), 3) for k, v in scores.items()})


if __name__ == "__main__":
    main()
