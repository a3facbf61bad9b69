"""Every number that shapes the demo model: pictures, words, sizes, training."""

from dataclasses import dataclass, field

# What can appear in a picture. Colours are base RGB values, jittered for each shape.
SHAPES = ["circle", "square", "triangle", "star", "heart", "cross", "ring"]
PLURALS = {shape: shape + "s" for shape in SHAPES} | {"cross": "crosses"}
COLORS = {
    "red": (214, 38, 42),
    "green": (38, 158, 62),
    "blue": (42, 82, 214),
    "yellow": (242, 216, 40),
    "purple": (136, 50, 172),
    "orange": (244, 132, 28),
    "black": (26, 26, 30),
}
COLOR_NAMES = list(COLORS)
BACKGROUNDS = ["plain", "striped", "checkered", "dotted", "noisy", "shaded"]
WORDS = ["CAT", "DOG", "SUN", "MAP", "BOX", "KEY", "JAM", "FOX", "PEN", "ZOO", "HAT", "BUS",
         "OPEN", "STOP", "EXIT", "CAFE", "BOOK", "FISH", "WIND", "GOLD"]
POSITIONS = ["top left", "top", "top right", "left", "center", "right",
             "bottom left", "bottom", "bottom right"]

MAX_SHAPES = 4
MAX_CHARS = 4
MASK_SIZE = 64

IMAGE_SIZE = 112
PATCH_SIZE = 14
GRID = IMAGE_SIZE // PATCH_SIZE
IMAGE_TOKENS = GRID * GRID

LOC_BINS = 1024
SEG_CODES = 128
BASE_PIECES = 1024  # SentencePiece vocabulary before the loc and seg pieces


@dataclass
class VisionConfig:
    width: int = 160
    layers: int = 8
    heads: int = 5
    mlp: int = 448
    image_size: int = IMAGE_SIZE
    patch_size: int = PATCH_SIZE
    norm_eps: float = 1e-6


@dataclass
class TextConfig:
    hidden: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 32
    ffn: int = 384
    vocab: int = 2240  # tokens + <image>, padded to a multiple of 64 as in the published models
    rope_theta: float = 10000.0
    norm_eps: float = 1e-6
    query_pre_attn_scalar: float = 32.0
    attn_softcap: float = 50.0
    final_softcap: float = 30.0
    sliding_window: int = 4096


@dataclass
class TrainConfig:
    pictures: int = 40  # per step
    prompts: int = 3  # per picture; they share one pass through the vision tower
    chunks: int = 4  # of a step's sequences, by length
    text_tokens: int = 76  # prompt + separator + suffix at most; three masks just fit
    warmup_pictures: int = 128
    warmup_steps: int = 1500  # vision tower alone, dense targets
    heads_steps: int = 40  # new dense heads over a tower that was read back
    steps: int = 8000
    ramp_steps: int = 30
    lr: float = 2e-3
    weight_decay: float = 0.05
    ema: float = 0.99
    loc_sigma: float = 3.0  # bins; one pixel of the 112 is 9 bins
    dense_weight: float = 0.5  # of the dense vision loss while the whole model trains
    task_weights: dict = field(default_factory=lambda: {
        "detect": 0.26, "segment": 0.24, "answer": 0.07, "caption": 0.16, "ocr": 0.27})
