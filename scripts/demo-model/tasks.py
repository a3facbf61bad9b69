"""What a scene is called: prompts and answers of the demo's tasks."""

from dataclasses import dataclass

import numpy as np

import settings as S

NUMBERS = ["no", "one", "two", "three", "four"]


def article(label):
    return ("an " if label[0] in "aeiou" else "a ") + label


def plural(label):
    words = label.split(" ")
    return " ".join(words[:-1] + [S.PLURALS[words[-1]]])


def join(parts):
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def position(center):
    """One of nine names, or None where a reader might choose another."""
    cells = []
    for v in center:
        if min(abs(v - 1 / 3), abs(v - 2 / 3)) < 0.03:
            return None
        cells.append(int(v * 3))
    return S.POSITIONS[cells[0] * 3 + cells[1]]


def loc(box):
    """<locY0><locX0><locY1><locX1>"""
    return "".join(f"<loc{round(min(max(v, 0), 1) * (S.LOC_BINS - 1)):04d}>" for v in box)


def seg(codes):
    return "".join(f"<seg{int(c):03d}>" for c in codes)


@dataclass
class Facts:
    """What is true of a picture. Objects are dicts of shape, color, box and (for segment) codes."""

    objects: list
    background: str
    text: str

    @classmethod
    def of_scene(cls, scene):
        objects = [{"shape": s.shape, "color": s.color, "box": tuple(map(float, s.box))} for s in scene.shapes]
        return cls(objects, scene.background, scene.text.text if scene.text else "")

    @staticmethod
    def label(thing):
        return f"{thing['color']} {thing['shape']}"

    def labels(self):
        """Every name something here goes by: "red circle" and "circle"."""
        return [self.label(o) for o in self.objects] + [o["shape"] for o in self.objects]

    def named(self, label):
        """Objects called so, top to bottom, then left to right."""
        found = [o for o in self.objects if label in (o["shape"], self.label(o))]
        return sorted(found, key=lambda o: (o["box"][0], o["box"][1]))

    def caption(self):
        counts = {}
        for o in sorted(self.objects, key=lambda o: o["box"][1] + o["box"][3]):  # left to right
            counts[self.label(o)] = counts.get(self.label(o), 0) + 1
        parts = [article(k) if n == 1 else f"{NUMBERS[n]} {plural(k)}" for k, n in counts.items()]
        text = f"{join(parts)} on a {self.background} background"
        if self.text:
            text += f" with the {'number' if self.text.isdigit() else 'word'} {self.text}"
        return text

    def questions(self):
        """All (kind, question, answer) that have one clear answer."""
        found = []
        shapes = [o["shape"] for o in self.objects]
        colors = [o["color"] for o in self.objects]
        for shape in S.SHAPES:
            found.append(("count", f"how many {S.PLURALS[shape]} are there?", str(shapes.count(shape))))
        for color in S.COLOR_NAMES:
            found.append(("count", f"how many {color} shapes are there?", str(colors.count(color))))
        found.append(("count", "how many shapes are there?", str(len(shapes))))
        for o in self.objects:
            if shapes.count(o["shape"]) == 1:
                found.append(("color", f"what color is the {o['shape']}?", o["color"]))
            if colors.count(o["color"]) == 1:
                found.append(("shape", f"what shape is {o['color']}?", o["shape"]))
            for name in (o["shape"], self.label(o)):
                if len(self.named(name)) == 1:
                    found += self._places(o, name)
        if self.text.isdigit():
            found.append(("text", "what number is printed?", self.text))
        elif self.text:
            found.append(("text", "what word is printed?", self.text))
        found.append(("background", "what is the background like?", self.background))
        return found

    def _places(self, thing, name):
        y, x = (thing["box"][0] + thing["box"][2]) / 2, (thing["box"][1] + thing["box"][3]) / 2
        found = []
        where = position((y, x))
        if where:
            found.append(("position", f"where is the {name}?", where))
        for side, sign in (("left", -1), ("right", 1)):
            away = [(sign * ((o["box"][1] + o["box"][3]) / 2 - x), o) for o in self.objects if o is not thing]
            beside = [o for d, o in away if d > 0.1]
            if len(beside) == 1 and all(abs(d) > 0.06 for d, _ in away):
                found.append(("relation", f"what is {side} of the {name}?", self.label(beside[0])))
        return found


QUESTION_WEIGHTS = {"count": 0.3, "color": 0.1, "shape": 0.06, "position": 0.2, "relation": 0.18,
                    "text": 0.08, "background": 0.08}


def choose(rng, items):
    return items[rng.integers(len(items))]


def sample_question(facts, rng):
    by_kind = {}
    for kind, question, answer in facts.questions():
        by_kind.setdefault(kind, []).append((question, answer))
    kinds = list(by_kind)
    weights = np.array([QUESTION_WEIGHTS[k] for k in kinds])
    kind = kinds[rng.choice(len(kinds), p=weights / weights.sum())]
    pairs = by_kind[kind]
    if kind == "count":  # as often about what is there as about what is not
        present = [p for p in pairs if p[1] != "0"]
        pairs = present if present and rng.random() < 0.75 else pairs
    return choose(rng, pairs)


def sample_labels(facts, rng, most, long=False):
    labels = []
    for _ in range(1 + int(max(rng.integers(most, size=2)) if long else rng.integers(most))):
        label = choose(rng, facts.labels())
        if label not in labels:
            labels.append(label)
    return labels


def absent_label(facts, rng):
    """A name of nothing here; mostly a near miss, in the colour or the shape of something that is here."""
    here = facts.labels()
    while True:
        shape, color = choose(rng, S.SHAPES), choose(rng, S.COLOR_NAMES)
        if here and rng.random() < 0.6:
            near = choose(rng, facts.objects)
            shape, color = (near["shape"], color) if rng.random() < 0.5 else (shape, near["color"])
        label = shape if rng.random() < 0.3 else f"{color} {shape}"
        if label not in here:
            return label


def asked_labels(facts, rng, most, absent=0.25):
    """As a user asks, who does not know what is there: some of the labels name nothing."""
    wanted = sample_labels(facts, rng, most, long=True) if facts.objects else [""]
    names = list(dict.fromkeys(facts.label(o) for o in facts.objects))
    kind = rng.random() if most > 1 else 1
    if kind < 0.25 and len(names) > 1:  # everything there, each by its full name
        return [names[i] for i in rng.permutation(len(names))[:most]]
    if kind < 0.6 and names:  # names of the same things, too: "star ; black star"
        both = list(dict.fromkeys(facts.labels()))
        return [both[i] for i in rng.permutation(len(both))[:most]]
    labels = [absent_label(facts, rng) if not label or rng.random() < absent else label for label in wanted]
    return list(dict.fromkeys(labels))


def found_objects(facts, labels):
    """(label, object) in the order of the answer: by label, then top to bottom."""
    return [(label, o) for label in labels for o in facts.named(label)]


def fitting(task, facts, rng):
    """The task or, where a picture has little to say to it, another: few readings of no text, no caption of nothing."""
    if task == "ocr" and not facts.text and rng.random() < 0.75 or task == "caption" and not facts.objects:
        return "detect"
    return task


def sample(task, facts, rng):
    """(prompt, suffix); the suffix is empty where nothing that is asked for is there."""
    if task == "caption":
        return "caption en", facts.caption()
    if task == "ocr":
        return "ocr", facts.text
    if task == "answer":
        question, answer = sample_question(facts, rng)
        return f"answer en {question}", answer
    labels = asked_labels(facts, rng, 1 if task == "segment" else 3)
    prompt = f"{task} {' ; '.join(labels)}"
    things = found_objects(facts, labels)
    if task == "detect":
        return prompt, " ; ".join(f"{loc(o['box'])} {label}" for label, o in things)
    return prompt, " ; ".join(f"{loc(o['box'])}{seg(o['codes'])} {label}" for label, o in things)
