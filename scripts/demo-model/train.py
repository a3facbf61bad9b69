"""Trains the demo model; checkpoints often, resumes with --resume.

    python train.py --out DIR --shards DIR/shards --tokenizer DIR/tokenizer.model --vae DIR/vae-oid.npz

Two stages: the vision tower alone with dense targets (what covers each patch), then everything on
prompts. A checkpoint of from_gguf.py begins with new dense heads instead of the first. The rate follows a
cosine of the progress, which is counted in steps or, with --minutes, in time: on a busy machine the
schedule then still ends when it has to.
"""

import argparse
import math
import os
import threading
import time
import queue

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import mask_vae
import model as M
import settings as S
import shards
from muon import Muon
from tokenizer import Tokenizer


class DenseHeads(nn.Module):
    """Reads shape, colour, character, text, box, background, outline, mask and place among the others off every vision
    token; thrown away after training."""

    def __init__(self, width):
        super().__init__()
        self.sizes = [len(S.SHAPES) + 1, len(S.COLORS) + 1, len(shards.CHARS) + 1, 4, len(S.BACKGROUNDS)]
        self.out = nn.Linear(width, sum(self.sizes))
        self.parts = nn.Linear(width, shards.FINE**2)
        self.small = nn.Linear(width, shards.SMALL**2)
        self.place = nn.Linear(width, 4 * S.MAX_SHAPES)
        self.text = nn.Linear(width, S.MAX_CHARS * self.sizes[2])
        y, x = np.meshgrid(shards.CENTERS, shards.CENTERS, indexing="ij")
        center = torch.tensor(np.stack([y, x, y, x], -1).reshape(-1, 4), dtype=torch.float32)
        self.register_buffer("center", center, persistent=False)

    def loss(self, states, batch):
        shape, color, char, box, background = self.out(states).float().split(self.sizes, -1)
        inside = (batch["shape"] > 0).float()
        error = F.smooth_l1_loss(box * 0.25, batch["box"] - self.center, beta=0.01, reduction="none").sum(-1)
        near = (error * inside).sum() / inside.sum().clamp(min=1)
        # Few patches show a character, and few are cut by an outline.
        parts = [weight * F.cross_entropy(guess.flatten(0, 1), batch[name].flatten())
                 for guess, name, weight in ((shape, "shape", 1), (color, "color", 1), (char, "char", 3),
                                             (background, "background", 1))]
        outline = F.binary_cross_entropy_with_logits(self.parts(states).float(), batch["parts"])
        on = batch["shape"] > 0
        small = F.binary_cross_entropy_with_logits(self.small(states[on]).float(), batch["small"][on])
        place = F.cross_entropy(self.place(states[on]).float().view(-1, S.MAX_SHAPES), batch["place"][on].flatten())
        on = batch["reads"]
        guess = self.text(states[on]).float().view(-1, self.sizes[2])
        text = F.cross_entropy(guess, batch["text"][on].flatten()) if len(guess) else guess.sum()
        return sum(parts) + 3 * outline + 5 * near + 3 * small + 2 * place + 3 * text, near, small, place, text


def products():
    """bfloat16 where the processor multiplies it natively; elsewhere it is far slower than float32."""
    with open("/proc/cpuinfo") as file:
        native = "avx512" in file.read()
    return torch.autocast("cpu", torch.bfloat16, enabled=native)


def jitter(pixels):
    """Slight changes of brightness, contrast and grain; colours keep their names."""
    n = len(pixels)
    gain = 1 + (torch.rand(n, 1, 1, 1) - 0.5) * 0.2
    shift = (torch.rand(n, 3, 1, 1) - 0.5) * 0.12
    return pixels * gain + shift + torch.randn_like(pixels) * torch.rand(n, 1, 1, 1) * 0.02


class Trainer(nn.Module):
    def __init__(self, tokenizer, c):
        super().__init__()
        self.c, self.loc = c, tokenizer.loc
        self.model = M.PaliGemma(S.VisionConfig(), S.TextConfig(), loc_start=tokenizer.loc).initialise()
        self.heads = DenseHeads(S.VisionConfig().width)
        self.seg, self.seg_bell = tokenizer.seg, None  # see like_cells
        offsets = torch.arange(-12, 13, 2)
        self.register_buffer("loc_offsets", offsets, persistent=False)
        self.register_buffer("loc_weights", torch.exp(-0.5 * (offsets / c.loc_sigma) ** 2), persistent=False)

    def like_cells(self, prototypes, spread=0.8):
        """Lets a seg target be a bell as well, over codes whose cells look alike."""
        self.seg_bell = torch.softmax(-(torch.cdist(prototypes, prototypes) / spread) ** 2, 1)

    def dense(self, batch):
        with products():
            return self.heads.loss(self.model.see(batch["pixels"]), batch)

    def dense_heads(self, batch):
        with products():
            with torch.no_grad():
                states = self.model.see(batch["pixels"])
            return self.heads.loss(states, batch)

    def full(self, batch):
        c = self.c
        with products():
            seen = self.model.see(batch["pixels"])
            dense, near, small, place, text = self.heads.loss(seen, batch)
            rows = self.model.multi_modal_projector.linear(seen).float()
            states = torch.cat([
                self.model.hidden(rows[part["picture"]], part["ids"], part["prefix"]).flatten(0, 1)[part["rows"]]
                for part in batch["chunks"]])
        # In float32: the bells of neighbouring loc bins differ by less than bfloat16 resolves.
        logits = self.model.logits(states.float())
        targets, weights = (torch.cat([part[name] for part in batch["chunks"]]) for name in ("targets", "weights"))
        loss, hit = self.suffix_loss(logits, targets, weights)
        return loss + c.dense_weight * dense, loss, hit, near, small, place, text

    def suffix_loss(self, logits, targets, weights):
        """Cross-entropy; a loc target is a narrow bell over its neighbours, since a near miss is nearly right."""
        is_loc = (targets >= self.loc) & (targets < self.loc + S.LOC_BINS)
        around = targets[:, None] + self.loc_offsets
        inside = is_loc[:, None] & (around >= self.loc) & (around < self.loc + S.LOC_BINS)
        bell = torch.where(inside, self.loc_weights, torch.zeros_like(self.loc_weights))
        bell = bell / bell.sum(1, keepdim=True).clamp(min=1e-6)
        near = torch.where(inside, around, torch.zeros_like(around))
        wanted = torch.where(is_loc, (logits.gather(1, near) * bell).sum(1),
                             logits.gather(1, targets[:, None])[:, 0])
        if self.seg_bell is not None:
            code = targets - self.seg
            is_seg = (code >= 0) & (code < S.SEG_CODES)
            bell = self.seg_bell[code[is_seg]]
            wanted[is_seg] = (logits[is_seg, self.seg:self.seg + S.SEG_CODES] * bell).sum(1)
        loss = torch.logsumexp(logits, 1) - wanted
        total = weights.sum()
        hit = ((logits.argmax(1) == targets) & ~is_loc).float()
        words = (~is_loc).float() * weights
        return (loss * weights).sum() / total, (hit * words).sum() / words.sum()


def prefetch(make, depth=3):
    """Batches from a thread: drawing up prompts overlaps with the products."""
    ready = queue.Queue(depth)

    def work():
        while True:
            ready.put(make())

    threading.Thread(target=work, daemon=True).start()
    return ready.get


def optimizers(trainer, c):
    """Muon for the square-ish matrices inside the layers, Adam for everything else."""
    inner = [p for n, p in trainer.named_parameters() if ".layers." in n and p.dim() == 2]
    known = {id(p) for p in inner}
    other = [p for p in trainer.parameters() if id(p) not in known]
    matrix, vector = [p for p in other if p.dim() > 1], [p for p in other if p.dim() < 2]
    adam = torch.optim.AdamW([{"params": matrix, "weight_decay": 0.01}, {"params": vector, "weight_decay": 0.0}],
                             lr=c.lr, betas=(0.9, 0.98))
    return [adam, Muon(inner, lr=c.lr, weight_decay=c.weight_decay)]


def run_stage(trainer, step_fn, next_batch, stage, total, minutes, state, save, lr, c):
    """Steps until `total`, or until `minutes` of this stage are over."""
    opts = optimizers(trainer, c)
    for opt, saved in zip(opts, state.pop("optimizers", [])):
        opt.load_state_dict(saved)
    params = list(trainer.parameters())
    average = state["average"]
    started, before = time.time(), state["elapsed"]
    lines, last = [], time.time()
    while True:
        elapsed = before + time.time() - started
        progress = elapsed / 60 / minutes if minutes else state["step"] / total
        if progress >= 1 or state["step"] >= total:
            break
        rate = lr * min(1, (state["step"] + 1) / c.ramp_steps) * (0.02 + 0.49 * (1 + math.cos(math.pi * progress)))
        for opt in opts:
            for group in opt.param_groups:
                group["lr"] = rate
        batch = next_batch()
        batch["pixels"] = jitter(M.to_pixels(batch["pixels"]))
        out = step_fn(batch)
        for p in params:
            p.grad = None
        out[0].backward()
        torch.nn.utils.clip_grad_norm_([p for p in params if p.grad is not None], 1.0)
        for opt in opts:
            opt.step()
        state["step"] += 1
        keep = min(c.ema, state["step"] / (state["step"] + 10))
        with torch.no_grad():
            for mean, p in zip(average, params):
                mean.lerp_(p, 1 - keep)
        lines.append([v.item() for v in out])
        if state["step"] % 50 == 0:
            mean = np.mean(lines, 0)
            print(f"{stage} {state['step']} " + " ".join(f"{v:.4f}" for v in mean)
                  + f" lr {rate:.5f} {(time.time() - last) / len(lines):.3f} s/step {progress:.1%}", flush=True)
            lines, last = [], time.time()
        if state["step"] % 100 == 0:
            state["elapsed"] = before + time.time() - started
            save(opts)
    state["elapsed"] = before + time.time() - started
    save(opts)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True)
    parser.add_argument("--shards", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--vae", required=True)
    parser.add_argument("--lr", type=float, default=S.TrainConfig.lr)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--minutes", type=float, default=0, help="of the second stage; 0: count steps")
    parser.add_argument("--warmup-minutes", type=float, default=0)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--fused", action="store_true", help="see fused.py")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    c = S.TrainConfig()
    if args.fused:
        import fused  # needs a C++ compiler, so nobody else does
        fused.use()
    torch.manual_seed(args.seed)
    tokenizer = Tokenizer(args.tokenizer)
    trainer = Trainer(tokenizer, c)
    print(sum(p.numel() for p in trainer.model.parameters()), "parameters", flush=True)
    compile = torch.compile if hasattr(torch, "compile") and not args.no_compile else lambda f: f
    path = os.path.join(args.out, "checkpoint.pt")
    state = {"stage": "dense", "step": 0, "elapsed": 0.0}
    if args.resume and os.path.exists(path):
        state = torch.load(path, weights_only=False)
        trainer.load_state_dict(state.pop("trainer"))
    else:
        state["average"] = [p.detach().clone() for p in trainer.parameters()]

    def save(opts):
        kept = dict(state, trainer=trainer.state_dict(), optimizers=[o.state_dict() for o in opts])
        torch.save(kept, path + ".tmp")
        os.replace(path + ".tmp", path)

    vae = mask_vae.load(args.vae)
    trainer.like_cells(vae._vq_vae._embedding[:, :mask_vae.PROTOTYPE])
    pictures = shards.Pictures(args.shards, vae)
    print(len(pictures), "pictures", flush=True)
    rng = np.random.default_rng([args.seed, state["step"], state["stage"] == "full"])
    calls = 0

    def refreshed(make):
        def call():
            nonlocal calls
            calls += 1
            if calls % 100 == 0:
                pictures.refresh()
            return make()
        return call

    # stage: (what computes the loss, steps, minutes, rate)
    first = {"heads": (trainer.dense_heads, c.heads_steps, 0, 5 * c.lr),
             "dense": (trainer.dense, c.warmup_steps, args.warmup_minutes, args.lr)}
    for stage in first:
        if state["stage"] != stage:
            continue
        step, steps, minutes, rate = first[stage]
        batches = prefetch(refreshed(lambda: shards.dense_batch(pictures, rng, c.warmup_pictures)[0]))
        run_stage(trainer, compile(step), batches, state["stage"], steps, minutes, state, save, rate, c)
        follows = "dense" if stage == "heads" and args.warmup_minutes else "full"
        state |= {"stage": follows, "step": 0, "elapsed": 0.0}
        state["average"] = [p.detach().clone() for p in trainer.parameters()]
    # A stream of its own: the thread of the first stage may still be drawing from the other.
    stream = np.random.default_rng([args.seed + 1, state["step"]])
    batches = prefetch(refreshed(lambda: shards.prompt_batch(pictures, tokenizer, stream, c)))
    run_stage(trainer, compile(trainer.full), batches, "full", c.steps, args.minutes, state, save, args.lr, c)


if __name__ == "__main__":
    main()
