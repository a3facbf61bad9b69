"""Teaches the mask decoder what a model's own codes stand for, the usual mistakes among them.

    node scripts/demo-model/mask_answers.mjs --shard DIR/shards/shard0000 --out DIR/answers.jsonl
    python mask_answers.py --answers DIR/answers.jsonl --shard DIR/shards/shard0000 --vae DIR/vae-oid.npz \
        --out DIR/vae-tuned.npz

The codes keep their meaning: the model need not learn anything anew.
"""

import argparse
import json

import numpy as np
import torch

import mask_vae
import settings as S
from evaluate import box_iou, parse
from shards import Shard


def answered(path, shard):
    """(codes [n, 16], masks uint8 [n, 64, 64]) of the answers whose box is right"""
    codes, masks = [], []
    with open(path) as file:
        for line in map(json.loads, file):
            i = line["picture"]
            free = [j for j in range(shard.shapes[i])
                    if f"{S.COLOR_NAMES[shard.color[i, j]]} {S.SHAPES[shard.shape[i, j]]}" == line["label"]]
            for _, box, said in parse(line["text"]):
                best = max(free, key=lambda j: box_iou(shard.box[i, j], box), default=None)
                if said and best is not None and box_iou(shard.box[i, best], box) > 0.75:
                    free.remove(best)
                    codes.append(said)
                    masks.append(np.unpackbits(shard.mask[i, best]).reshape(S.MASK_SIZE, S.MASK_SIZE))
    return torch.tensor(codes), np.stack(masks)


def pairs(vae, codes, masks, batch=48):
    """As the model said them and, every second, as they would be right, so that neither is forgotten."""
    while True:
        pick = torch.randint(len(codes), (batch,))
        wanted = torch.from_numpy(masks[pick.numpy()]).float()
        said = torch.rand(batch, 1) < 0.5
        yield torch.where(said, codes[pick], vae.codes(wanted, noise=0.1)), wanted


def main():
    parser = argparse.ArgumentParser()
    for name in ("--answers", "--shard", "--vae", "--out"):
        parser.add_argument(name, required=True)
    parser.add_argument("--minutes", type=float, default=4)
    args = parser.parse_args()
    torch.manual_seed(0)
    vae = mask_vae.load(args.vae)
    codes, masks = answered(args.answers, Shard(args.shard))
    held = len(codes) // 10

    def score():
        return mask_vae.held_out_iou(vae, codes[:held], masks[:held])

    before = score()
    mask_vae.train(vae, pairs(vae, codes[held:], masks[held:]), args.minutes, lr=5e-4)
    print(f"{len(codes)} masks; held-out IoU {before:.4f} before, {score():.4f} after")
    mask_vae.save(vae, args.out)


if __name__ == "__main__":
    main()
