"""The mask codes: 64x64 mask <-> 16 codes, decoded by the architecture of the published `vae-oid.npz`.

    python mask_vae.py --out vae-oid.npz

A code stands for what one of 4 x 4 cells looks like: the code book holds prototypes of cells, found by
k-means, and encoding is to look for the nearest. The decoder smooths what 128 prototypes leave rough. A
learned encoder would look at the whole mask for each code, so that nearly equal masks do not share it,
and a small model hardly learns to say it.
"""

import argparse
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import scenes
import settings as S

DEPTH = 512
CELLS = 4  # a side
CELL = S.MASK_SIZE // CELLS // 2  # side of a cell at half resolution
PROTOTYPE = CELL * CELL  # values; the rest of a code book row is 0


class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(),
                                 nn.Conv2d(width, width, 3, padding=1), nn.ReLU(),
                                 nn.Conv2d(width, width, 1))

    def forward(self, x):
        return x + self.net(x)


def up(i, o):
    return nn.ConvTranspose2d(i, o, 4, stride=2, padding=1)


def cells(masks):
    """[n, 64, 64] of 0..1 -> slightly blurred cells [n * 16, PROTOTYPE], row-major"""
    x = F.avg_pool2d(F.pad(masks[:, None], (1, 1, 1, 1), mode="replicate"), 3, 1)
    x = F.avg_pool2d(x, 2)
    return x.view(-1, CELLS, CELL, CELLS, CELL).permute(0, 1, 3, 2, 4).reshape(-1, PROTOTYPE)


def nearest(x, prototypes):
    return ((prototypes**2).sum(1) - 2 * x @ prototypes.T).argmin(1)


def prototypes(x, rounds=25, most=40000):
    """k-means of cells that an edge runs through; nothing and everything are prototypes of their own."""
    x = x[x.std(1) > 0.02]
    x = x[torch.randperm(len(x))[:most]]
    centers = x[: S.SEG_CODES - 2].clone()
    for _ in range(rounds):
        codes = nearest(x, centers)
        sums = torch.zeros_like(centers).index_add_(0, codes, x)
        counts = torch.bincount(codes, minlength=len(centers)).float()[:, None]
        centers = torch.where(counts > 0, sums / counts.clamp(min=1), x[torch.randint(len(x), (len(centers),))])
    return torch.cat([torch.zeros(1, PROTOTYPE), torch.ones(1, PROTOTYPE), centers])


class CodeBook(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("_embedding", torch.zeros(S.SEG_CODES, DEPTH))


class MaskVae(nn.Module):
    """Attribute names are those of the published arrays, so that state_dict is the file."""

    def __init__(self):
        super().__init__()
        relu = nn.ReLU
        self._vq_vae = CodeBook()
        self.decoder = nn.Sequential(
            nn.Conv2d(DEPTH, 128, 1), relu(), Residual(128), Residual(128),
            up(128, 128), relu(), up(128, 64), relu(), up(64, 32), relu(), up(32, 16), relu(),
            nn.Conv2d(16, 1, 1))
        self.paste()

    @torch.no_grad()
    def paste(self):
        """Begins as what puts the prototypes side by side, which needs a few channels of each layer."""
        first, _, one, two, *rest = self.decoder
        first.weight[:PROTOTYPE] = torch.eye(PROTOTYPE, DEPTH)[:, :, None, None]
        first.bias[:PROTOTYPE] = 0
        for block in (one, two):
            for p in block.net[-1].parameters():
                p.zero_()
        *ups, last, out = [layer for layer in rest if not isinstance(layer, nn.ReLU)]
        side = CELL
        for layer in ups:  # a channel a value: each quarter of a cell moves to a pixel of its own
            half = side // 2
            layer.weight[:, :half * half] = 0
            layer.bias[:half * half] = 0
            for y in range(side):
                for x in range(side):
                    layer.weight[y * side + x, y % half * half + x % half, 1 + y // half, 1 + x // half] = 1
            side = half
        ramp = torch.tensor([0.25, 0.75, 0.75, 0.25])
        last.weight[:, 0], last.bias[0] = 0, 0
        last.weight[0, 0] = ramp[:, None] * ramp
        out.weight.zero_()
        out.weight[0, 0], out.bias[0] = 2, -1  # 0..1 becomes -1..1

    def codes(self, masks, noise=0.0):
        """[n, 64, 64] in 0..1 -> [n, 16]; noise makes it take like cells for each other, as a model does."""
        x = cells(masks)
        x = x + noise * torch.randn_like(x) if noise else x
        return nearest(x, self._vq_vae._embedding[:, :PROTOTYPE]).view(-1, CELLS * CELLS)

    def decode(self, codes):
        """[n, 16] -> [n, 64, 64], about -1..1"""
        flat = self._vq_vae._embedding[codes.reshape(-1)]
        return self.decoder(flat.view(-1, CELLS, CELLS, DEPTH).permute(0, 3, 1, 2))[:, 0]


def load(path):
    vae = MaskVae()
    arrays = np.load(path)
    vae.load_state_dict({name: torch.from_numpy(arrays[name]) for name in arrays.files})
    return vae.eval()


def save(vae, path):
    np.savez(path, **{name: value.contiguous().numpy() for name, value in vae.state_dict().items()})


def random_masks(rng, count):
    """Bits as uint8 [count, 64, 64]; some of shapes that a picture's border cuts off"""
    masks = []
    for _ in range(count):
        outline, _ = scenes.random_outline(S.SHAPES[rng.integers(len(S.SHAPES))], rng)
        y, x = rng.uniform(-0.5, 0.5, 2) if rng.random() < 0.15 else (0, 0)
        masks.append(scenes.visible(scenes.Shape("", "", (), (y, x, y + 1, x + 1), outline))[1])
    return np.stack(masks).astype(np.uint8)


def mask_iou(a, b):
    return ((a & b).sum((1, 2)) / (a | b).sum((1, 2)).clip(1)).mean()


def train(vae, batches, minutes, lr=1e-3):
    """Teaches the decoder (codes, masks) pairs, from a generator, until the clock says stop; the codes stay."""
    optimizer = torch.optim.AdamW(vae.decoder.parameters(), lr, betas=(0.9, 0.98), weight_decay=1e-4)
    started, losses = time.time(), []
    while (progress := (time.time() - started) / 60 / minutes) < 1:
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1, (len(losses) + 1) / 50) * (0.02 + 0.49 * (1 + np.cos(np.pi * progress)))
        codes, masks = next(batches)
        loss = F.mse_loss(vae.decode(codes), masks * 2 - 1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if len(losses) % 50 == 0:
            print(f"{len(losses)} loss {np.mean(losses[-50:]):.4f} {time.time() - started:.0f}s", flush=True)
    return vae.eval()


def pairs(vae, masks, batch=48):
    while True:
        picked = torch.from_numpy(masks[np.random.randint(len(masks), size=batch)]).float()
        yield vae.codes(picked, noise=0.1), picked


def held_out_iou(vae, codes, masks):
    """Of the decoded codes with uint8 masks"""
    with torch.no_grad():
        again = torch.cat([vae.decode(part) for part in codes.split(256)]) > 0
    return mask_iou(again.numpy(), masks > 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--masks", type=int, default=12000)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    np.random.seed(args.seed)
    masks = random_masks(np.random.default_rng(args.seed), args.masks)
    vae = MaskVae()
    vae._vq_vae._embedding[:, :PROTOTYPE] = prototypes(cells(torch.from_numpy(masks).float()))
    save(vae, args.out)  # the codes are final: shards may be encoded while the decoder learns
    held_out = random_masks(np.random.default_rng(args.seed + 1), 500)
    codes = vae.codes(torch.from_numpy(held_out).float())
    print(f"code book written; held-out mask IoU {held_out_iou(vae, codes, held_out):.4f}", flush=True)
    train(vae, pairs(vae, masks), args.minutes)
    print(f"held-out mask IoU {held_out_iou(vae, codes, held_out):.4f}")
    save(vae, args.out)
