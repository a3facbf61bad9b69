"""The mask VQ-VAE: 64x64 mask <-> 16 codes, in the layout of the published `vae-oid.npz`.

    python mask_vae.py --out vae-oid.npz
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


class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(),
                                 nn.Conv2d(width, width, 3, padding=1), nn.ReLU(),
                                 nn.Conv2d(width, width, 1))

    def forward(self, x):
        return x + self.net(x)


def down(i, o):
    return nn.Conv2d(i, o, 4, stride=2, padding=1)


def up(i, o):
    return nn.ConvTranspose2d(i, o, 4, stride=2, padding=1)


class Codebook(nn.Module):
    """Nearest-neighbour quantisation; codes follow a moving average of what they are chosen for."""

    def __init__(self, decay=0.99):
        super().__init__()
        self.decay = decay
        self.register_buffer("_embedding", torch.randn(S.SEG_CODES, DEPTH) * 0.1)
        self.register_buffer("_ema_w", self._embedding.clone())
        self.register_buffer("_ema_cluster_size", torch.ones(S.SEG_CODES))

    def nearest(self, flat):
        """[n, DEPTH] -> [n]"""
        distance = (self._embedding**2).sum(1) - 2 * flat @ self._embedding.T
        return distance.argmin(1)

    def update(self, flat, codes):
        counts = torch.bincount(codes, minlength=S.SEG_CODES).float()
        sums = torch.zeros_like(self._ema_w).index_add_(0, codes, flat)
        self._ema_cluster_size.lerp_(counts, 1 - self.decay)
        self._ema_w.lerp_(sums, 1 - self.decay)
        size = self._ema_cluster_size
        self._embedding.copy_(self._ema_w / size.clamp(min=1e-5)[:, None])
        # A code that nothing chooses would stay dead: it restarts at a vector of this batch.
        dead = (size < 0.1).nonzero()[:, 0]
        if len(dead):
            fresh = flat[torch.randint(len(flat), (len(dead),))]
            self._embedding[dead] = fresh
            self._ema_w[dead] = fresh
            self._ema_cluster_size[dead] = 1.0


class MaskVae(nn.Module):
    """Attribute names are those of the published arrays, so that state_dict is the file."""

    def __init__(self):
        super().__init__()
        relu = nn.ReLU
        self.encoder = nn.Sequential(
            down(1, 16), relu(), down(16, 32), relu(), down(32, 64), relu(), down(64, 128), relu(),
            Residual(128), Residual(128), nn.Conv2d(128, DEPTH, 1))
        self._vq_vae = Codebook()
        self.decoder = nn.Sequential(
            nn.Conv2d(DEPTH, 128, 1), relu(), Residual(128), Residual(128),
            up(128, 128), relu(), up(128, 64), relu(), up(64, 32), relu(), up(32, 16), relu(),
            nn.Conv2d(16, 1, 1))

    def encode(self, masks):
        """[n, 64, 64] in -1..1 -> latents [n * 16, DEPTH], positions row-major"""
        return self.encoder(masks[:, None]).permute(0, 2, 3, 1).reshape(-1, DEPTH)

    def codes(self, masks):
        return self._vq_vae.nearest(self.encode(masks)).view(-1, 16)

    def decode(self, codes):
        """[n, 16] -> [n, 64, 64], about -1..1"""
        return self.decode_latents(self._vq_vae._embedding[codes.reshape(-1)])

    def decode_latents(self, flat):
        return self.decoder(flat.view(-1, 4, 4, DEPTH).permute(0, 3, 1, 2))[:, 0]


def load(path):
    vae = MaskVae()
    arrays = np.load(path)
    vae.load_state_dict({name: torch.from_numpy(arrays[name]) for name in arrays.files})
    return vae.eval()


def random_masks(rng, count):
    """Bits as uint8 [count, 64, 64]"""
    return np.stack([scenes.outline_mask(scenes.random_outline(S.SHAPES[rng.integers(len(S.SHAPES))], rng)[0]) > 127
                     for _ in range(count)]).astype(np.uint8)


def mask_iou(a, b):
    return ((a & b).sum((1, 2)) / (a | b).sum((1, 2)).clip(1)).mean()


def train(masks, steps, batch=64, lr=1e-3):
    vae = MaskVae().to(memory_format=torch.channels_last)  # the faster layout on a CPU
    optimizer = torch.optim.AdamW(vae.parameters(), lr, betas=(0.9, 0.98), weight_decay=1e-4)
    started = time.time()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1, step / 100) * (0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * step / steps)))
        pick = np.random.randint(len(masks), size=batch)
        x = torch.from_numpy(masks[pick]).float() * 2 - 1
        with torch.autocast("cpu", torch.bfloat16):
            latents = vae.encode(x)
        latents = latents.float()
        codes = vae._vq_vae.nearest(latents.detach())
        vae._vq_vae.update(latents.detach(), codes)
        chosen = vae._vq_vae._embedding[codes]
        # Unquantised latents for a short start give the code book something to settle on.
        quantised = latents if step < 100 else latents + (chosen - latents).detach()
        with torch.autocast("cpu", torch.bfloat16):
            y = vae.decode_latents(quantised)
        y = y.float()
        loss = F.mse_loss(y, x) + 0.25 * F.mse_loss(latents, chosen)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 0:
            used = len(codes.unique())
            print(f"{step} loss {loss.item():.4f} iou {mask_iou((y > 0).numpy(), (x > 0).numpy()):.4f} "
                  f"codes {used} {time.time() - started:.0f}s", flush=True)
    return vae.eval()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True)
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--masks", type=int, default=16000)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    np.random.seed(args.seed)
    masks = random_masks(np.random.default_rng(args.seed), args.masks)
    vae = train(masks, args.steps)
    held_out = random_masks(np.random.default_rng(args.seed + 1), 500)
    with torch.no_grad():
        again = vae.decode(vae.codes(torch.from_numpy(held_out).float() * 2 - 1))
    print(f"held-out mask IoU {mask_iou((again > 0).numpy(), held_out > 0):.4f}")
    np.savez(args.out, **{name: value.contiguous().numpy() for name, value in vae.state_dict().items()})
