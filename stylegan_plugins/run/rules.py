"""The rules of `stylegan-plugins advise`: published figures, and a table from data to options.

A new result changes a row here. docs/make_reference.py writes the rows to which_method.md and transfer.md in
docs/methods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

# Published figures. -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Figures:
    """A published table of FID; lower is better.

    title    data, networks and protocol in words
    source   paper and table
    columns  names of the columns of `rows`"""

    title: str
    source: str
    columns: tuple[str, ...]
    rows: Mapping[str, tuple[float, ...]]


HOU = "talk of Hou et al. 2023, arXiv:2205.15677"
ZHAO = "Zhao et al. 2020, arXiv:2006.10738"
LOW_SHOT = ("Obama", "Grumpy cat", "Panda", "Cat", "Dog")
CIFAR = tuple(f"{name} {share}" for name in ("CIFAR-10", "CIFAR-100") for share in ("100%", "20%", "10%"))
FIGURES = {
    "low-shot": Figures(
        "StyleGAN2, 100 to 389 pictures (the last two AnimalFace), 5,000 samples against the training pictures",
        f"{HOU}, low-shot table",
        LOW_SHOT,
        {
            "StyleGAN2": (80.20, 48.90, 34.27, 71.71, 130.19),
            "advaug": (52.86, 31.02, 14.75, 47.40, 68.28),
            "ADA": (45.69, 26.62, 12.90, 40.77, 56.83),
            "apa": (42.97, 28.10, 19.21, 42.60, 81.16),
            "diffaugment": (46.87, 27.08, 12.06, 42.44, 58.85),
            "augself": (26.00, 19.81, 8.36, 30.53, 48.19),
            "genco (its authors' repository)": (32.21, 17.79, 9.49, 30.89, 49.63),
        },
    ),
    "transfer": Figures(
        "StyleGAN2 fine-tuned from FFHQ, and from scratch, on the pictures of **low-shot**",
        f"{ZHAO}, first version, low-shot table",
        LOW_SHOT,
        {
            "transfergan": (48.73, 34.06, 23.20, 52.61, 82.38),
            "freezed": (41.87, 31.22, 17.95, 47.70, 70.46),
            "scale-shift": (50.72, 34.20, 21.38, 54.83, 83.04),
            "minegan": (235.00, 287.96, 331.86, 279.48, 254.08),
            "transfergan,diffaugment": (39.85, 29.77, 17.12, 49.10, 65.57),
            "freezed,diffaugment": (35.75, 29.34, 14.50, 46.07, 61.03),
            "StyleGAN2 (from scratch)": (89.18, 61.97, 90.96, 95.75, 164.54),
            "diffaugment (from scratch)": (54.39, 29.90, 13.21, 46.51, 62.78),
        },
    ),
    "subsets": Figures(
        "StyleGAN2, subsets of FFHQ and LSUN-Cat",
        f"{HOU}, table of FFHQ and LSUN-Cat",
        tuple(f"{name} {share}" for name in ("FFHQ", "LSUN-Cat") for share in ("30k", "10k", "5k", "1k")),
        {
            "StyleGAN2": (6.16, 14.75, 26.60, 62.16, 10.12, 17.93, 34.69, 182.85),
            "ADA": (5.46, 8.13, 10.96, 21.29, 10.50, 13.13, 16.95, 43.25),
            "diffaugment": (5.05, 7.86, 10.45, 25.66, 9.68, 12.07, 16.11, 42.26),
            "augself": (4.95, 6.98, 9.69, 23.38, 9.22, 11.98, 14.86, 36.76),
            "augself, plus": (5.82, 6.65, 9.15, 20.39, 9.43, 12.00, 14.12, 26.52),
        },
    ),
    "cifar-stylegan2": Figures(
        "StyleGAN2, shares of the 50,000 training images of CIFAR-10 and CIFAR-100",
        ZHAO,
        CIFAR,
        {
            "StyleGAN2": (11.07, 23.08, 36.02, 16.54, 32.30, 45.87),
            "diffaugment": (9.89, 12.15, 14.50, 15.22, 16.65, 20.75),
            "disp,diffaugment (Mangla et al. 2022)": (9.50, 10.92, 12.03, 14.45, 15.52, 17.33),
        },
    ),
    "cifar-biggan": Figures(
        "BigGAN, the same shares; all but the first row with DiffAugment",
        f"{HOU}, table of CIFAR",
        CIFAR,
        {
            "BigGAN": (9.59, 21.58, 39.78, 12.87, 33.11, 66.71),
            "diffaugment": (8.70, 14.04, 22.40, 12.00, 22.14, 33.70),
            "cr": (8.49, 12.84, 18.70, 11.25, 20.28, 26.90),
            "lecam": (8.28, 12.56, 17.68, 11.20, 18.03, 27.63),
            "diggan": (8.49, 13.01, 17.87, 11.63, 19.79, 24.59),
            "maskedgan": (8.41, 12.51, 15.89, 11.65, 18.33, 24.02),
            "genco": (7.98, 12.61, 18.10, 10.92, 18.44, 25.22),
            "augself": (7.68, 10.97, 15.68, 9.88, 16.11, 21.30),
        },
    ),
}


@dataclass(frozen=True)
class Quote:
    """Figures of a table of FIGURES. columns: those to quote; empty: all."""

    table: str
    rows: tuple[str, ...]
    columns: tuple[str, ...] = ()

    def __str__(self) -> str:
        table = FIGURES[self.table]
        columns = self.columns or table.columns
        values = lambda row: " / ".join(f"{table.rows[row][table.columns.index(name)]:.2f}" for name in columns)
        figures = "; ".join(f"{row} {values(row)}" for row in self.rows)
        return f"FID, {' / '.join(columns)}: {figures} ({table.source})"


@dataclass(frozen=True)
class Known:
    """Anything else that is known, or a statement that nothing is known.

    source    a page of this repository, or a source elsewhere; empty if nothing is known"""

    text: str
    source: str = ""

    def __str__(self) -> str:
        return f"{self.text} ({self.source})" if self.source else self.text


# Rules. -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Facts:
    """Facts of a case. Rules give ranges of them.

    images, side      number of pictures, and their side in pixels in training
    classes           classes of the pictures, 0 without; per_class: pictures of the smallest class
    fixed             pictures must not be mirrored, moved or recolored
    pickle            there is a network to start from; trained_D: it has a trained D
    pickle_classes    classes of that network
    gpu               memory of the GPU in GiB, 0 without a GPU"""

    images: int
    side: int
    classes: int = 0
    per_class: int = 0
    fixed: bool = False
    pickle: bool = False
    trained_D: bool = False
    pickle_classes: int = 0
    gpu: float = 0.0


Range = tuple[float, float]  # both ends included
MANY = float("inf")
YES: Range = (1, 1)
NO: Range = (0, 0)


@dataclass(frozen=True)
class Rule:
    """A row of the table.

    data      the case in words
    when      ranges of Facts
    why       two or three sentences
    evidence  a figure with its source, or a statement that none is known
    options   of train.py
    then      a next comparison"""

    data: str
    when: Mapping[str, Range]
    why: str
    evidence: tuple[Quote | Known, ...]
    options: Mapping[str, str] = field(default_factory=dict)
    then: str = ""

    def fits(self, facts: Facts) -> bool:
        """Return whether all facts are in their ranges."""
        return all(low <= getattr(facts, name) <= high for name, (low, high) in self.when.items())


ADA_README = "README of NVlabs/stylegan2-ada-pytorch"
FREEZABLE: Range = (32, MANY)  # freezed keeps the blocks above 16x16 fixed

METHODS = (  # the first that fits counts
    Rule(
        "pictures that must not be mirrored, moved or recolored (`--fixed`: medical images, characters), and a pickle",
        {"fixed": YES, "trained_D": YES, "side": FREEZABLE},
        "FreezeD changes no picture, so no augmentation can leak into samples. The first layers of D are kept, which "
        "leaves less to memorise the pictures with.",
        (Quote("transfer", ("transfergan", "freezed")),),
        {"plugin": "freezed", "aug": "noaug"},
        "`apa` or `lecam` with it",
    ),
    Rule(
        "the same without a pickle, or below 32x32",
        {"fixed": YES},
        "APA shows D generated images as real ones when D is too sure: no picture is changed, so no augmentation can "
        "leak into samples. ADA is off for the same reason.",
        (Quote("low-shot", ("StyleGAN2", "apa")),),
        {"plugin": "apa", "aug": "noaug"},
        "`lecam` with it, `noise`, or `diffaugment` with the transformations that are harmless",
    ),
    Rule(
        "fewer than 500 pictures, and a pickle of a related kind, of 32x32 or more",
        {"trained_D": YES, "images": (0, 499), "side": FREEZABLE},
        "G and D know most of the things that so few pictures cannot teach, the first layers of D are kept, and the "
        "augmentation delays over-fitting. Far from the source, as with pandas from faces, training from scratch was "
        "as good.",
        (
            Quote("transfer", ("transfergan", "freezed", "freezed,diffaugment", "diffaugment (from scratch)")),
            Known(
                "200 seconds on a CPU core, 100 photographs of 32x32: KID 0.081 ± 0.035 with freezed,diffaugment from "
                "a network of drawn portraits, 0.429 ± 0.107 with diffaugment from scratch",
                "docs/inside/results.md",
            ),
            Known(
                "12 kimg on 100 boots of 16x16, from a network of other shoes, KID against held-out boots: 0.0212 ± "
                "0.0024 fine-tuned whole, 0.0287 ± 0.0015 with freezed, 0.0408 ± 0.014 with freezed,diffaugment, "
                "0.111 ± 0.0099 from scratch with diffaugment",
                "docs/inside/results.md",
            ),
        ),
        {"plugin": "freezed,diffaugment"},
        "`freezed,augself`, `disp`; `diffaugment` from scratch, if the source is far",
    ),
    Rule(
        "500 pictures and more, or of less than 32x32, and a pickle",
        {"trained_D": YES},
        "All of G and D is trained on, with an augmentation against over-fitting. Freezing layers was published for "
        "about a hundred pictures.",
        (
            Quote("transfer", ("transfergan", "transfergan,diffaugment")),
            Known("no figure is known to us for fine-tuning on 1,000 pictures and more"),
        ),
        {"plugin": "diffaugment"},
        "`freezed,diffaugment`, `augself`",
    ),
    Rule(
        "fewer than 500 pictures (published: of one kind, such as faces, a cat, a panda)",
        {"images": (0, 499)},
        "With so few pictures D memorises them, and an augmentation of all that D sees delays this at a low price: no "
        "further pass of D and no further network. All three transformations are on. AugSelf has lower published FID, "
        "and was not better in our short runs: compare both.",
        (
            Quote("low-shot", ("StyleGAN2", "diffaugment", "augself")),
            Known(
                "18 kimg on 106 faces of 16x16: 28.67 ± 10.4 distinct nearest training pictures among 1,000 "
                "samples with it, 19 ± 4.36 without; KID against the training pictures is 0.1795 ± 0.0524 with it, "
                "0.1365 ± 0.0171 without",
                "docs/inside/results.md",
            ),
            Known(
                "40 kimg on 100 shoes of 16x16: KID against held-out shoes 0.0238 ± 0.0043 with it, 0.0406 ± 0.0063 "
                "without; after 64 kimg 0.0178 ± 0.0045 with it, 0.0242 ± 0.0035 with augself",
                "docs/inside/results.md",
            ),
        ),
        {"plugin": "diffaugment"},
        "`augself`, `genco`, and a pickle of a related kind, if there is one",
    ),
    Rule(
        "500 to 5,000 pictures",
        {"images": (500, 4999)},
        "D still memorises so many pictures, and an augmentation of all that D sees gains most. ADA and DiffAugment "
        "are close to each other, except on FFHQ 1k, where ADA is better.",
        (
            Quote(
                "subsets", ("StyleGAN2", "ADA", "diffaugment", "augself, plus"), ("FFHQ 1k", "FFHQ 5k", "LSUN-Cat 1k")
            ),
        ),
        {"plugin": "diffaugment"},
        "`augself --augself-preset=plus`, the hosts' ADA (no `--plugin`), `vision-aided`, `insgen`; with several kinds "
        "of pictures without labels `self-cond,diffaugment`; if GPU time is short, "
        "`projected --projected-preset=stylegan2`",
    ),
    Rule(
        "5,000 to 40,000 pictures",
        {"images": (5000, 39_999)},
        "The gain of an augmentation shrinks, but DiffAugment is still ahead of the plain run and of ADA at the "
        "published sizes.",
        (Quote("subsets", ("StyleGAN2", "ADA", "diffaugment", "augself"), ("FFHQ 10k", "FFHQ 30k", "LSUN-Cat 10k")),),
        {"plugin": "diffaugment"},
        "`augself`, `contrad`, `cr` or `bcr`, `lecam`",
    ),
    Rule(
        "40,000 pictures and more",
        {"images": (40_000, MANY)},
        "So many pictures are memorised late, and a weaker augmentation is enough: the authors leave translation out "
        "for all of CIFAR.",
        (Quote("cifar-stylegan2", ("StyleGAN2", "diffaugment"), ("CIFAR-10 100%", "CIFAR-100 100%")),),
        {"plugin": "diffaugment", "diffaugment-policy": "color,cutout"},
        "the hosts' ADA (no `--plugin`), `contrad`, `disp`",
    ),
)

ADDITIONS = (  # all that fit count
    Rule(
        "a pickle with classes",
        {"pickle_classes": (1, MANY)},
        "The pickle was trained with classes, so the pictures need the same ones.",
        (Known("a run with other labels than its pickle is refused", "docs/methods/transfer.md"),),
        {"cond": "1"},
    ),
    Rule(
        "classes with 100 pictures or more in each",
        {"pickle": NO, "classes": (2, MANY), "per_class": (100, MANY)},
        "G learns the classes, and samples of one class can be asked for.",
        (Known("no figure with and without classes is known to us; low-shot sets have 100 pictures or more"),),
        {"cond": "1"},
    ),
    Rule(
        "classes with fewer pictures",
        {"pickle": NO, "classes": (2, MANY), "per_class": (0, 99)},
        "Classes are left out, as one of them has fewer than 100 pictures; --cond=1 uses them.",
        (Known("no figure is known to us for so few pictures of a class"),),
    ),
    Rule(
        "a pickle without a trained D",
        {"pickle": YES, "trained_D": NO},
        "G alone is taken from the pickle, and D starts at random, so nothing of D can be frozen.",
        (Known("no figure is known to us for G alone; the figures of docs/methods/transfer.md are of G and D"),),
    ),
    Rule(
        "a pickle, and a GPU",
        {"pickle": YES, "gpu": (0.01, MANY)},
        "Fine-tuning takes a fraction of the images that training from scratch does.",
        (Known("1000 kimg are often enough for transfer learning, 25000 from scratch", ADA_README),),
        {"kimg": "1000"},
    ),
    Rule(
        "a GPU of less than 8 GiB, and 128 pixels or more",
        {"gpu": (0.01, 7.99), "side": (128, MANY)},
        "The GPU gets four images at a time, which takes less memory and changes nothing else but the groups of D's "
        "minibatch standard deviation.",
        (Known("5.0 GB at 256x256, 7.6 GB at 512x512 and 8.1 GB at 1024x1024, on a V100", ADA_README),),
        {"batch-gpu": "4"},
    ),
    Rule(
        "no GPU",
        {"gpu": NO},
        "Without a GPU train.py takes small networks, pictures of at most 32x32 and about an hour, unless a pickle or "
        "options say otherwise; expect first shapes, not results.",
        (
            Known(
                "18 kimg, about a minute on two CPU cores, gave faces of 16x16 pixels; 12 kimg from a pretrained "
                "network gave faces of 32x32, and first shapes from scratch",
                "docs/inside/results.md",
            ),
        ),
    ),
    Rule(
        "any pictures",
        {"fixed": NO},
        "Whether a mirrored picture is a possible one cannot be seen from pixels. If it is, add --mirror=1, which "
        "doubles the pictures.",
        (Known("--mirror=1 is often beneficial, even with ADA", ADA_README),),
    ),
)
