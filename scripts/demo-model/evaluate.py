"""Scores an exported model on held-out pictures with PyTorch; evaluate.mjs does it with the engine.

    python evaluate.py --model EXPORT --pictures DIR [--limit 100] [--show]
"""

import argparse
import base64
import json
import os
import re
from collections import Counter

import numpy as np
import torch
from PIL import Image

import check_model
import mask_vae
import model as M
import scenes
import settings as S
from tokenizer import Tokenizer

OBJECT = re.compile(r"<loc(\d{4})><loc(\d{4})><loc(\d{4})><loc(\d{4})>((?:<seg\d{3}>){16})? ([^;<>]+)")


def parse(text):
    """[(label, box, codes or None)]"""
    found = []
    for *loc, seg, label in OBJECT.findall(text):
        codes = [int(c) for c in re.findall(r"\d{3}", seg)] if seg else None
        found.append((label.strip(), tuple(int(v) / (S.LOC_BINS - 1) for v in loc), codes))
    return found


def box_iou(a, b):
    h = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    w = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    both = h * w
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both + 1e-9)


def paste(mask, box, size=224):
    """[64, 64] bool over a box -> [size, size] bool"""
    full = np.zeros((size, size), bool)
    y0, x0, y1, x1 = (int(round(v * size)) for v in box)
    if y1 > y0 and x1 > x0:
        part = Image.fromarray(mask.astype(np.uint8) * 255).resize((x1 - x0, y1 - y0), Image.BILINEAR)
        full[y0:y1, x0:x1] = np.asarray(part) > 127
    return full


def expected(record, labels):
    """[(label, object)]"""
    return [(label, o) for label in labels for o in record["objects"] if label in (o["label"], o["shape"])]


def match(wanted, got, score):
    """Best score of each wanted thing, every answer used once and only under its own label."""
    pairs = sorted(((score(w, g), i, j) for i, w in enumerate(wanted) for j, g in enumerate(got)
                    if w[0] == g[0]), reverse=True)
    best, used = [0.0] * len(wanted), set()
    for value, i, j in pairs:
        if best[i] == 0 and j not in used and value > 0:
            best[i] = value
            used.add(j)
    return best


def run(model, tokenizer, vae, records, folder, show=False):
    pixels = {r["file"]: scenes.shrink(np.asarray(Image.open(os.path.join(folder, r["file"])).convert("RGB")))
              for r in records}

    def ask(jobs, most, batch=128):
        """[(record, prompt)] -> texts"""
        texts = []
        for start in range(0, len(jobs), batch):
            part = jobs[start:start + batch]
            images = M.to_pixels(torch.from_numpy(np.stack([pixels[r["file"]] for r, _ in part])))
            out = model.generate(images, [tokenizer.prompt(p) for _, p in part], most)
            texts += [tokenizer.decode(ids) for ids in out]
        if show:
            for (r, p), t in list(zip(jobs, texts))[:show]:
                print(f"  {r['file']} {p!r} -> {t!r}")
        return texts

    scores = {}
    texts = ask([(r, "detect " + " ; ".join(r["detect"])) for r in records], 44)
    ious, answered = [], 0
    for r, t in zip(records, texts):
        got = parse(t)
        answered += len(got)
        ious += match(expected(r, r["detect"]), got, lambda w, g: box_iou(w[1]["box"], g[1]))
    ious = np.array(ious)
    scores["detect: recall, IoU > 0.5 and right label"] = (ious > 0.5).mean()
    scores["detect: precision"] = (ious > 0.5).sum() / max(1, answered)
    scores["detect: mean IoU of the boxes found"] = ious[ious > 0.5].mean()
    scores["detect: mean IoU, a missed box counts 0"] = ious.mean()

    texts = ask([(r, "segment " + " ; ".join(r["segment"])) for r in records], 50)
    masks, mask_boxes = [], []
    for r, t in zip(records, texts):
        got = [(label, paste((vae.decode(torch.tensor([codes]))[0] > 0).numpy(), box), box)
               for label, box, codes in parse(t) if codes]
        bits = lambda o: np.unpackbits(np.frombuffer(base64.b64decode(o["mask"]), np.uint8)).reshape(64, 64) > 0
        wanted = [(label, paste(bits(o), o["box"]), o["box"])
                  for label, o in expected(r, r["segment"])]
        masks += match(wanted, got, lambda w, g: (w[1] & g[1]).sum() / max(1, (w[1] | g[1]).sum()))
        mask_boxes += match(wanted, got, lambda w, g: box_iou(w[2], g[2]))
    masks, found = np.array(masks), np.array(mask_boxes) > 0.5
    scores["segment: recall, box IoU > 0.5 and right label"] = found.mean()
    scores["segment: mean mask IoU of the objects found"] = masks[found].mean()
    scores["segment: mean mask IoU, a missed mask counts 0"] = masks.mean()

    jobs = [(r, q) for r in records for q in r["questions"]]
    texts = ask([(r, "answer en " + q["question"]) for r, q in jobs], 6)
    hits, totals = Counter(), Counter()
    for (_, q), t in zip(jobs, texts):
        totals[q["kind"]] += 1
        hits[q["kind"]] += t.strip() == q["answer"]
    for kind in sorted(totals):
        scores[f"answer: {kind}"] = hits[kind] / totals[kind]

    texts = ask([(r, "caption en") for r in records], 40)
    scores["caption: exactly right"] = np.mean([t.strip() == r["caption"] for r, t in zip(records, texts)])
    printed = [r for r in records if r["text"]]
    texts = ask([(r, "ocr") for r in printed], 8)
    for name, kind in (("numbers", True), ("words", False)):
        right = [t.strip() == r["text"] for r, t in zip(printed, texts) if r["text"].isdigit() == kind]
        if right:
            scores[f"ocr: {name}"] = np.mean(right)
    return scores


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--pictures", required=True)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--show", type=int, default=0, help="print so many answers of each task")
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    with open(os.path.join(args.pictures, "truth.json")) as file:
        records = json.load(file)[: args.limit]
    scores = run(check_model.load(args.model), Tokenizer(os.path.join(args.model, "tokenizer.model")),
                 mask_vae.load(os.path.join(args.model, "vae-oid.npz")), records, args.pictures, args.show)
    for name, value in scores.items():
        print(f"| {name} | {value:.3f} |")
