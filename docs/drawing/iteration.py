"""The data flow of one training iteration, with the places of parts and hooks: docs/pictures/iteration.svg."""

from __future__ import annotations

from drawing.svg import FAINT, INK, WIDTH, Box, Drawing, Style

HOST = Style("#f0f2f4", "#8894a0")
PART = Style("#dce9ff", "#2563c9", "#123f8c")
HOOK = Style("#ffedd1", "#c27400", "#7a4600", radius=15)
PANEL = Style("#fafbfc", "#d5dbe1", radius=6)
LEGEND = ((HOST, "NVIDIA's host"), (PART, "part that a method brings"), (HOOK, "hook of a plug-in or a method"))

LEFT, MIDDLE, RIGHT = 32, 268, 526  # columns: generated images, real images, what a method adds beside them
COLUMN, SIDE = 218, 214  # their widths: of the first two, and of the last
BOTH = MIDDLE + COLUMN - LEFT  # the width of the first two columns
VIEW = ["a further batch of images", "that a term reads, made of", "raw, clean or shown images,", "or of other latents"]
LANE = 758  # of the arrow from D to terms


def iteration() -> str:
    """Return the picture."""
    drawing = Drawing(
        "One training iteration",
        "Data flow from latents and real images through G, ADA, augmentations, D, critic and terms to the loss and the "
        "optimisers, with the hooks and parts of plug-ins at their places.",
    )
    drawing.text((24, 38), "One training iteration", 20, bold=True)
    x = 24.0
    for style, meaning in LEGEND:
        drawing.rect(Box(x, 54, 22, 16), Style(style.fill, style.line, radius=min(style.radius, 8)))
        drawing.text((x + 29, 67), meaning, 13)
        x += {HOST: 156, PART: 228, HOOK: 0}[style]
    _phases(drawing, 88)
    _round(drawing, 174)
    _step(drawing, 1012)
    _end(drawing, 1132)
    return drawing.svg(1256)


def _panel(drawing: Drawing, y: float, height: float, title: str, note: str = "") -> None:
    drawing.rect(Box(16, y, WIDTH - 32, height), PANEL)
    drawing.text((28, y + 22), title, 14, bold=True)
    if note:
        drawing.text((28, y + 40), note, 12.5, FAINT)


def _phases(drawing: Drawing, y: float) -> None:
    """Draw the phases of an iteration."""
    drawing.text((24, y + 21), "Its phases:", 14, bold=True)
    phases = {
        "Gmain": "loss of G",
        "Greg": "path lengths (lazy)",
        "Dmain": "loss of D",
        "Dreg": "R1 (lazy)",
    }
    x, before = 124.0, None
    for (name, what), width in zip(phases.items(), (136, 168, 136, 136), strict=True):
        box = drawing.box(Box(x, y, width, 46), HOST, name, [what], mono=True)
        if before is not None:
            drawing.arrow(before.right(), box.left())
        x, before = x + width + 22, box
    drawing.text((124, y + 66), "Each phase runs blocks 1 and 2. Block 3 ends the iteration.", 12.5, FAINT)


def _round(drawing: Drawing, y: float) -> None:
    """Draw a round of a phase, from images to gradients."""
    note = "D's step takes generated images, then real ones. G's step takes real ones only for pairs and terms on both."
    _panel(drawing, y, 826, "1. A round of a phase: from images to gradients", note)

    # Images.
    y += 60
    latents = drawing.box(Box(LEFT, y, COLUMN, 30), HOST, "latents z, labels c")
    images = drawing.box(Box(MIDDLE, y, COLUMN, 30), HOST, "images x, their labels")
    labels = drawing.box(
        Box(RIGHT, y - 8, SIDE, 46), HOOK, "register_labels", ["labels of a method, of x and c"], mono=True
    )
    drawing.arrow(labels.left(), images.right())
    y += 48
    paired = drawing.box(Box(LEFT, y, COLUMN, 46), HOOK, "paired_latents", ["other z and c, in Gmain"], mono=True)
    real = drawing.box(Box(MIDDLE, y, COLUMN, 46), HOOK, "real_images", ["shows D other images as real"], mono=True)
    y += 64
    module = Box(LEFT, y, COLUMN, 46)
    drawing.box(module, HOOK, "register_generator_module", ["a network in front of G"], mono=True)
    y += 64
    G = drawing.box(Box(LEFT, y, COLUMN, 30), HOST, "G: mapping, synthesis")
    for above, below in ((latents, paired), (paired, module), (module, G), (images, real)):
        drawing.arrow(above.bottom(), below.top())

    # The images that D sees.
    y += 60
    ada = drawing.box(Box(LEFT, y, BOTH, 30), HOST, "blur (stylegan3), ADA")
    drawing.arrow(G.bottom(), (G.bottom()[0], ada.y))
    drawing.arrow(real.bottom(), (real.bottom()[0], ada.y))
    y += 60
    lines = ["T(x; omega), differentiable, on all that D sees"]
    augmentation = drawing.box(Box(LEFT, y, BOTH, 46), PART, "Augmentation", lines, mono=True)
    y += 92
    D = drawing.box(Box(LEFT, y, LANE + 10 - LEFT, 30), HOST, "D: outputs of its layers, logits")
    middle = LEFT + BOTH / 2
    drawing.arrow((middle, ada.bottom()[1]), (middle, augmentation.y))
    drawing.arrow((middle, augmentation.bottom()[1]), (middle, D.y))
    levels = [("raw", G.bottom()[1] + 13), ("clean", ada.bottom()[1] + 13), ("shown", augmentation.bottom()[1] + 13)]
    view = Box(RIGHT, levels[0][1] - 18, SIDE, levels[2][1] - levels[0][1] + 30)
    drawing.box(view, PART, "View", VIEW, mono=True)
    drawing.arrow(view.bottom(), (view.bottom()[0], D.y))
    starts = {"raw": G.bottom()[0], "clean": middle, "shown": middle}
    for x, (_, level) in zip((real.bottom()[0], *starts.values()), (levels[0], *levels), strict=True):
        drawing.dot((x, level))
    for name, level in levels:
        drawing.arrow((starts[name], level), (view.x, level), dash="4 3")
        drawing.rect(Box(starts[name] + 40, level - 9, 52, 18), Style(PANEL.fill, PANEL.fill))
        drawing.text((starts[name] + 66, level + 4), name, 12.5, INK, mono=True, anchor="middle")

    # Logits, terms.
    y += 54
    lines = ["its logits, or D's without a critic"]
    critic = drawing.box(Box(LEFT, y, 290, 46), PART, "Critic", lines, mono=True)
    observe = drawing.box(Box(LEFT + 306, y, 148, 46), HOOK, "observe", ["sees each pass"], mono=True)
    head = drawing.box(Box(RIGHT, y, SIDE, 46), PART, "Head", ["module of critic or term"], mono=True)
    drawing.arrow((critic.top()[0], D.bottom()[1]), critic.top())
    drawing.arrow((observe.top()[0], D.bottom()[1]), observe.top())
    y += 86
    gan = drawing.box(Box(LEFT, y, COLUMN, 46), HOST, "adversarial loss", ["--gan-loss, of the logits"])
    lines = ["R1, R2, WGAN-GP; in Dreg"]
    penalties = drawing.box(Box(MIDDLE, y, COLUMN, 46), HOST, "penalties", lines)
    term = drawing.box(Box(RIGHT, y, SIDE, 46), PART, "Term", ["of D or G, for each image"], mono=True)
    bus = critic.bottom()[1] + 20
    drawing.path([critic.bottom(0.25), (critic.bottom(0.25)[0], bus)])
    drawing.path([(critic.bottom(0.25)[0], bus), (term.top(0.25)[0], bus)])
    for box, at in ((gan, 0.5), (penalties, 0.5), (term, 0.25)):
        drawing.arrow((box.top(at)[0], bus), box.top(at))
    drawing.text((critic.bottom(0.25)[0] + 8, bus - 6), "logits, and their gradients by images", 12.5, FAINT)
    drawing.arrow(head.bottom(0.6), term.top(0.6))
    drawing.arrow((LANE, D.bottom()[1]), (LANE, term.right()[1]), term.right())
    drawing.text((LANE - 8, D.bottom()[1] + 18), "layers, views", 12.5, FAINT, anchor="end")

    # Loss, gradients.
    y += 64
    lines = ["weights of images, in Gmain"]
    weights = drawing.box(Box(LEFT, y, COLUMN, 46), HOOK, "sample_weights", lines, mono=True)
    drawing.arrow(gan.bottom(), weights.top())
    y += 64
    total = Box(LEFT, y, LANE + 10 - LEFT, 30)
    drawing.box(total, HOST, "loss = adversarial loss + penalties + sum of weight × term")
    for box in (weights, penalties, term):
        drawing.arrow(box.bottom(), (box.bottom()[0], total.y))
    y += 48
    backward = drawing.box(Box(LEFT, y, BOTH, 46), HOST, "backward", ["gradients of G, or of D, and of its heads"])
    drawing.arrow((backward.top()[0], total.bottom()[1]), backward.top())
    trains = drawing.box(Box(RIGHT, y, SIDE, 46), HOOK, "trains", ["which weights learn now"], mono=True)
    drawing.arrow(trains.left(), backward.right())


def _row(drawing: Drawing, y: float, boxes: list[tuple[float, Style, str, list[str]]]) -> list[Box]:
    """Draw boxes from left to right with arrows between them, by their width, and return them."""
    x, drawn = float(LEFT), list[Box]()
    gap = (LANE + 10 - LEFT - sum(width for width, *_ in boxes)) / (len(boxes) - 1)
    for width, style, name, lines in boxes:
        drawn.append(drawing.box(Box(x, y, width, 62), style, name, lines, mono=style is not HOST))
        if len(drawn) > 1:
            drawing.arrow(drawn[-2].right(), drawn[-1].left())
        x += width + gap
    return drawn


def _step(drawing: Drawing, y: float) -> None:
    """Draw the end of a phase."""
    _panel(drawing, y, 108, "2. After the rounds of a phase: a step of G, or of D")
    boxes = [
        (154.0, HOST, "optimiser", ["of G or of D"]),
        (154.0, PART, "Head", ["heads of the same", "network step, too"]),
        (176.0, PART, "Average", ["follows its module,", "after Dmain"]),
        (154.0, HOOK, "step_end", ["after each", "phase"]),
    ]
    _row(drawing, y + 34, boxes)


def _end(drawing: Drawing, y: float) -> None:
    """Draw the end of an iteration, and of a tick."""
    _panel(drawing, y, 108, "3. After all phases")
    boxes = [
        (92.0, HOST, "G_ema", ["follows G"]),
        (112.0, HOOK, "batch_end", ["after each", "iteration"]),
        (92.0, HOST, "ADA", ["sets p"]),
        (104.0, HOOK, "snapshot", ["a pickle", "is written"]),
        (116.0, HOOK, "statistics", ["adds to", "stats.jsonl"]),
        (92.0, HOOK, "tick", ["stats.jsonl", "is written"]),
    ]
    drawn = _row(drawing, y + 34, boxes)
    drawing.text((drawn[3].x, y + 22), "At the end of a tick", 14, bold=True)
