"""Random scenes of coloured shapes and printed text, and how to draw them.

All coordinates are fractions of the picture: x to the right, y down.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import settings as S

FONT = "/usr/share/fonts/truetype/dejavu/DejaVuSans-Bold.ttf"


@dataclass
class Shape:
    shape: str
    color: str
    rgb: tuple
    box: tuple  # y0, x0, y1, x1
    outline: list  # [(points [n, 2] as x, y inside the box 0..1, filled)]; a hole is not filled

    @property
    def label(self):
        return f"{self.color} {self.shape}"

    @property
    def center(self):
        y0, x0, y1, x1 = self.box
        return (y0 + y1) / 2, (x0 + x1) / 2


@dataclass
class Text:
    text: str
    rgb: tuple
    x: float
    y: float
    size: float  # font size
    box: tuple
    char_boxes: list  # one y0, x0, y1, x1 a character


@dataclass
class Scene:
    background: str
    background_seed: int
    shapes: list = field(default_factory=list)
    text: Text | None = None


# --- outlines -----------------------------------------------------------------------------------

def _ellipse(radius=1.0, points=48):
    angle = np.linspace(0, 2 * math.pi, points, endpoint=False)
    return np.stack([np.cos(angle), np.sin(angle)], 1) * radius


def _star(inner):
    angle = np.arange(10) * math.pi / 5 - math.pi / 2
    radius = np.where(np.arange(10) % 2 == 0, 1.0, inner)
    return np.stack([np.cos(angle), np.sin(angle)], 1) * radius[:, None]


def _heart():
    t = np.linspace(0, 2 * math.pi, 48, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([x, -y], 1) / 16


def _cross(arm):
    a = arm
    return np.array([(-a, -1), (a, -1), (a, -a), (1, -a), (1, a), (a, a), (a, 1), (-a, 1),
                     (-a, a), (-1, a), (-1, -a), (-a, -a)], float)


def random_outline(shape, rng):
    """Outline of a randomly turned and stretched shape that fills 0..1 in both directions, and the
    width / height of what it fills."""
    turn = {"circle": 0, "ring": 0, "square": 22, "triangle": 30, "star": 36, "heart": 25, "cross": 45}[shape]
    if shape == "circle":
        parts = [(_ellipse(), True)]
    elif shape == "ring":
        parts = [(_ellipse(), True), (_ellipse(rng.uniform(0.48, 0.62)), False)]
    elif shape == "square":
        parts = [(np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], float), True)]
    elif shape == "triangle":
        parts = [(np.array([(0, -1), (0.95, 0.75), (-0.95, 0.75)], float), True)]
    elif shape == "star":
        parts = [(_star(rng.uniform(0.38, 0.5)), True)]
    elif shape == "heart":
        parts = [(_heart(), True)]
    else:
        parts = [(_cross(rng.uniform(0.26, 0.36)), True)]
    angle = math.radians(rng.uniform(-turn, turn))
    spin = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    stretch = 1 if shape == "square" else math.exp(rng.uniform(-0.15, 0.15))
    parts = [((points * (stretch, 1)) @ spin, filled) for points, filled in parts]
    low, high = parts[0][0].min(0), parts[0][0].max(0)
    extent = high - low
    return [((points - low) / extent, filled) for points, filled in parts], extent[0] / extent[1]


def outline_mask(outline, size=S.MASK_SIZE, oversample=3):
    """Coverage [size, size] in 0..255 of an outline stretched over the whole square."""
    image = Image.new("L", (size * oversample,) * 2)
    draw = ImageDraw.Draw(image)
    for points, filled in outline:
        draw.polygon([tuple(p) for p in points * (size * oversample - 1)], fill=255 if filled else 0)
    return np.asarray(image.resize((size, size), Image.BOX))


# --- composition --------------------------------------------------------------------------------

def _overlap(a, b):
    """Intersection over the smaller of two boxes."""
    h = min(a[2], b[2]) - max(a[0], b[0])
    w = min(a[3], b[3]) - max(a[1], b[1])
    if h <= 0 or w <= 0:
        return 0.0
    return h * w / min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))


def _place(rng, height, width, taken, limit, tries=25):
    for _ in range(tries):
        y, x = rng.uniform(0.01, 0.99 - height), rng.uniform(0.01, 0.99 - width)
        box = (y, x, y + height, x + width)
        if all(_overlap(box, other) <= limit for other in taken):
            return box
    return None


_fonts = {}


def _font(pixels):
    if pixels not in _fonts:
        _fonts[pixels] = ImageFont.truetype(FONT, pixels)
    return _fonts[pixels]


def _random_text(rng, taken, light):
    if rng.random() < 0.25:
        text = S.WORDS[rng.integers(len(S.WORDS))]
    else:
        text = str(rng.integers(10 ** int(rng.integers(1, 4))))
    return _printed(rng, text, taken, light)


def _printed(rng, text, taken, light=0.25):
    size = rng.uniform(0.17, 0.27) * (0.85 if len(text) > 3 else 1)
    font = _font(256)
    left, top, right, bottom = (v / 256 * size for v in font.getbbox(text))
    box = _place(rng, bottom - top, right - left, taken, 0.0)
    if box is None:
        return None
    y, x = box[0] - top, box[1] - left
    edges = [x + font.getlength(text[:i]) / 256 * size for i in range(len(text) + 1)]
    chars = [(box[0], a, box[2], b) for a, b in zip(edges, edges[1:])]
    dark = rng.random() < 1 - light
    rgb = tuple(int(v) for v in (rng.integers(0, 50, 3) if dark else rng.integers(235, 256, 3)))
    return Text(text, rgb, x, y, size, box, chars)


def random_scene(rng, text_chance=0.6, alike=0.35, same=0.6, light=0.25):
    """`alike`: how often a shape takes after an earlier one, `same`: in its form, and in its colour; `light`: how much
    of the text is white."""
    scene = Scene(S.BACKGROUNDS[rng.integers(len(S.BACKGROUNDS))], int(rng.integers(2**31)))
    boxes = []
    count = rng.integers(1, S.MAX_SHAPES + 1)
    for i in range(count):
        # Scenes repeat colours and shapes more often than chance would: counting needs that.
        if scene.shapes and rng.random() < alike:
            like = scene.shapes[rng.integers(len(scene.shapes))]
            shape = like.shape if rng.random() < same else S.SHAPES[rng.integers(len(S.SHAPES))]
            color = like.color if rng.random() < same else S.COLOR_NAMES[rng.integers(len(S.COLORS))]
        else:
            shape = S.SHAPES[rng.integers(len(S.SHAPES))]
            color = S.COLOR_NAMES[rng.integers(len(S.COLORS))]
        outline, ratio = random_outline(shape, rng)
        size = rng.uniform(0.2, 0.46 if count > 2 else 0.52)
        height, width = (size, size * ratio) if ratio < 1 else (size / ratio, size)
        box = _place(rng, height, width, boxes, 0.1)
        if box is None:
            continue
        boxes.append(box)
        scene.shapes.append(Shape(shape, color, _tint(color, rng), box, outline))
    if rng.random() < text_chance:
        scene.text = _random_text(rng, boxes, light)
    return scene


def scene_of(rng, names, text, background, apart=0.03):
    """A scene of just these (color, shape) and this text, well apart and off the border; None where one had no room."""
    scene, taken = Scene(background, int(rng.integers(2**31))), []
    for color, shape in names:
        outline, ratio = random_outline(shape, rng)
        size = rng.uniform(0.25, 0.34)
        height, width = (size, size * ratio) if ratio < 1 else (size / ratio, size)
        place = _place(rng, height + 2 * apart, width + 2 * apart, taken, 0.0)
        if place is None:
            return None
        taken.append(place)
        box = (place[0] + apart, place[1] + apart, place[2] - apart, place[3] - apart)
        scene.shapes.append(Shape(shape, color, _tint(color, rng), box, outline))
    scene.text = _printed(rng, text, taken)
    return scene if scene.text else None


def _tint(color, rng):
    return tuple(int(v) for v in np.clip(np.array(S.COLORS[color]) + rng.integers(-14, 15, 3), 0, 255))


def tile_scene(rng):
    """What a tile of a large picture shows: few and smaller shapes, some cut off at its border, often none."""
    scene = Scene(S.BACKGROUNDS[rng.integers(len(S.BACKGROUNDS))] if rng.random() < 0.4 else "plain",
                  int(rng.integers(2**31)))
    names = [(S.COLOR_NAMES[rng.integers(len(S.COLORS))], S.SHAPES[rng.integers(len(S.SHAPES))]) for _ in range(3)]
    boxes = []
    for _ in range(rng.integers(0, S.MAX_SHAPES + 1)):
        color, shape = names[rng.integers(len(names))]
        outline, ratio = random_outline(shape, rng)
        size = math.exp(rng.uniform(math.log(0.1), math.log(0.4)))
        height, width = (size, size * ratio) if ratio < 1 else (size / ratio, size)
        y, x = rng.uniform(-0.5 * height, 1 - 0.5 * height), rng.uniform(-0.5 * width, 1 - 0.5 * width)
        box = (y, x, y + height, x + width)
        if any(_overlap(box, other) > 0 for other in boxes):
            continue
        boxes.append(box)
        scene.shapes.append(Shape(shape, color, _tint(color, rng), box, outline))
    return scene


def visible(shape):
    """A shape as a picture shows it: its box ends at the border, and so does its outline's mask, [64, 64] bits."""
    y0, x0, y1, x1 = shape.box
    box = tuple(min(max(v, 0.0), 1.0) for v in shape.box)
    mask = outline_mask(shape.outline)
    if box != shape.box:
        part = [(box[i] - (y0, x0)[i % 2]) / (y1 - y0, x1 - x0)[i % 2] * S.MASK_SIZE for i in range(4)]
        cut = Image.fromarray(mask).resize(mask.shape, Image.BILINEAR, (part[1], part[0], part[3], part[2]))
        mask = np.asarray(cut)
    return box, mask > 127


# --- drawing ------------------------------------------------------------------------------------

def _background(scene, size):
    """RGB [size, size, 3] float32, light and of little saturation, so that shapes stand out."""
    rng = np.random.default_rng(scene.background_seed)
    base = rng.uniform(135, 225) + rng.uniform(-22, 22, 3)
    other = np.clip(base + rng.choice([-1, 1]) * rng.uniform(18, 42) + rng.uniform(-10, 10, 3), 90, 250)
    base, other = base.astype(np.float32), other.astype(np.float32)
    grid = (np.arange(size, dtype=np.float32) + 0.5) / size
    x, y = grid[None, :], grid[:, None]
    angle = rng.uniform(0, math.pi)
    along = x * np.float32(math.cos(angle)) + y * np.float32(math.sin(angle))
    across = y * np.float32(math.cos(angle)) - x * np.float32(math.sin(angle))
    cycles = np.float32(rng.uniform(4, 11))
    phase = np.float32(rng.uniform())
    if scene.background == "striped":
        mix = ((along * cycles + phase) % 1 < 0.5).astype(np.float32)
    elif scene.background == "checkered":
        mix = (((along * cycles + phase) % 1 < 0.5) ^ ((across * cycles + phase) % 1 < 0.5)).astype(np.float32)
    elif scene.background == "dotted":
        u, v = (along * cycles + phase) % 1 - 0.5, (across * cycles + phase) % 1 - 0.5
        mix = (u * u + v * v < 0.07).astype(np.float32)
    elif scene.background == "noisy":
        cells = int(rng.integers(28, 80))
        coarse = Image.fromarray((rng.random((cells, cells)) * 255).astype(np.uint8))
        mix = np.asarray(coarse.resize((size, size), Image.BILINEAR), np.float32) / 255
    elif scene.background == "shaded":
        mix = (along - along.min()) / (along.max() - along.min())
        mix = mix * 2 - 0.5  # a wider range than one colour step, or it would hardly show
    else:
        mix = np.zeros((size, size), np.float32)
    return base + mix[..., None] * (other - base)


def draw(scene, size, oversample=2):
    """RGB picture [size, size, 3] uint8."""
    big = size * oversample
    image = Image.fromarray(np.clip(_background(scene, big), 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    for shape in scene.shapes:
        y0, x0, y1, x1 = (v * big for v in shape.box)
        if any(not filled for _, filled in shape.outline):
            mask = Image.new("L", image.size)
            brush, ink, hole = ImageDraw.Draw(mask), 255, 0
        else:
            brush, ink, hole = pen, shape.rgb, None
        for points, filled in shape.outline:
            points = points * (x1 - x0, y1 - y0) + (x0, y0)
            brush.polygon([tuple(p) for p in points], fill=ink if filled else hole)
        if brush is not pen:
            image.paste(shape.rgb, mask=mask)
    if scene.text:
        t = scene.text
        # Sizes in whole pixels of a big canvas: close enough to the fractions at any scale in use.
        pen.text((t.x * big, t.y * big), t.text, fill=t.rgb, font=_font(max(1, round(t.size * big))))
    if oversample > 1:
        image = image.resize((size, size), Image.BICUBIC)
    return np.asarray(image)


def shrink(pixels, size=S.IMAGE_SIZE):
    """What the model sees of a larger picture."""
    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.BICUBIC))
