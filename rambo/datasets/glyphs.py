"""Glyphs: letters rendered from the typefaces that matplotlib ships, a benchmark that needs no download."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from rambo.datasets.records import Records
from rambo.datasets.retrieval import RetrievalData

# Letters that look like an earlier one of the three lists are left out (K for Kappa and Ka, x for X). The rule: drawn
# to fill the same box, averaged over the twelve faces, two letters are at least 0.06 apart (one minus cosine of the
# slightly blurred pixels). Letters with accents are left out too. The tests measure the lists against the rule.
LATIN = (
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijkmnopqrtuvxyz0123456789ÆØÞßæðøþĦŁŊŋŒĸɐɑɒɔɕɖɗɘəɚɛɜɝɞɠɡɢɣɤɥɧɩɪɫɬɭɮɯɰɱɲɳɴɶɷɸɹɺɻɼɽɾɿ"
    "ʀʁʂʃʅʆʇʈʉʊʋʌʍʎʏʐʑʒʓʔʕʖʗʙʚʛʝʞʟʠʣʤʥʦʧʨ"
)
GREEK = "ΓΔΘΞΣΦΨΩαβγδζηικλμνξπςστφχψω"
CYRILLIC = "БДЖЗЛУЦЧШЩЪЫЬЭЮЯбвгджилмтфцчщъыьэюяЂЄЉЊЋЏђљњћџҐґѢѣѴ"

FACES = (
    *(f"DejaVuSans{style}.ttf" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSerif{style}.ttf" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"STIXGeneral{style}.ttf" for style in ("", "Bol", "Italic", "BolIta")),
)

_CANVAS = 64  # pixels at which letters are drawn and warped, before they are made smaller


class Glyphs(RetrievalData):
    """Letters RENDERED from twelve typefaces (DejaVu, STIXGeneral) and warped: a toy that says nothing of photographs.

    Classes are letters: training on Latin letters, digits and phonetic signs, test on Greek and Cyrillic letters, none
    of which looks like a letter of the training half. Each letter is drawn `renders` times, going through the typefaces
    in turn, dark on light, each time with another rotation, slant, size, place and bend, the same for every seed.

    Args:
        image_size: Side of the images in pixels.
        renders: Images of each letter.
    """

    title = "glyphs"
    remedy = "pip install matplotlib"

    def __init__(self, image_size: int = 32, renders: int = 24, **shared: Any) -> None:
        if not 8 <= image_size <= _CANVAS:
            raise ValueError(f"image_size must be 8 to {_CANVAS}, got {image_size}")
        if renders < 2:
            raise ValueError(f"renders must be at least 2, since a single image can find no other, got {renders}")
        self.image_size, self.renders = image_size, renders
        super().__init__("glyphs", **shared)

    def read(self, root: Path) -> dict[str, Records]:
        """Draws both halves."""
        few = 16 if self.fixture else None
        return {"train": self._draw(LATIN[:few], 0), "test": self._draw((GREEK + CYRILLIC)[:few], len(LATIN))}

    def write_fixture(self, root: Path) -> Path:
        """Nothing to write: a fixture is 16 letters of each half."""
        return root

    def _draw(self, letters: str, first_label: int) -> Records:
        faces = [ImageFont.truetype(str(font_folder() / face), 48) for face in FACES[: self.renders]]
        drawn = [torch.from_numpy(draw(letter, face)) for letter in letters for face in faces]
        turn = torch.arange(self.renders) % len(faces)
        upright = torch.stack(drawn).view(len(letters), len(faces), 1, _CANVAS, _CANVAS)[:, turn].flatten(0, 1)
        generator = torch.Generator().manual_seed(first_label)
        images = torch.cat([warp(some.float(), self.image_size, generator) for some in torch.split(upright, 256)])
        return Records(
            names=[f"U+{ord(letter):04X} {i}" for letter in letters for i in range(self.renders)],
            labels=first_label + torch.arange(len(letters)).repeat_interleave(self.renders),
            pixels=(255 - images).round().to(torch.uint8),
            class_names=dict(enumerate(letters, start=first_label)),
        )


def font_folder() -> Path:
    """Where matplotlib keeps its typefaces; a ModuleNotFoundError without it."""
    try:
        from matplotlib import get_data_path
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"glyphs are drawn from matplotlib's typefaces; run: {Glyphs.remedy}") from error
    return Path(get_data_path()) / "fonts" / "ttf"


def draw(letter: str, face: ImageFont.FreeTypeFont) -> NDArray[np.uint8]:
    """The letter in the middle of a 64 x 64 canvas, light on dark."""
    left, top, right, bottom = face.getbbox(letter)
    image = Image.new("L", (_CANVAS, _CANVAS))
    corner = (_CANVAS / 2 - (left + right) / 2, _CANVAS / 2 - (top + bottom) / 2)
    ImageDraw.Draw(image).text(corner, letter, font=face, fill=255)
    return np.array(image)


def warp(images: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Turns, slants, scales, shifts and bends each of (n, 1, 64, 64) at random; float (n, 1, size, size)."""
    count = len(images)

    def draws(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    angle, slant = draws(-0.25, 0.25), draws(-0.2, 0.2)
    wide, high = 1 / draws(0.7, 1.2), 1 / draws(0.7, 1.2)
    cos, sin = angle.cos(), angle.sin()
    rows = [
        torch.stack([wide * cos, wide * (slant * cos - sin), draws(-0.14, 0.14)], dim=1),
        torch.stack([high * sin, high * (slant * sin + cos), draws(-0.14, 0.14)], dim=1),
    ]
    grid = functional.affine_grid(torch.stack(rows, dim=1), [count, 1, _CANVAS, _CANVAS], align_corners=False)
    bends = 0.08 * torch.randn(count, 2, 4, 4, generator=generator)
    bent = functional.interpolate(bends, size=(_CANVAS, _CANVAS), mode="bicubic", align_corners=True)
    moved = functional.grid_sample(images, grid + bent.permute(0, 2, 3, 1), align_corners=False)
    smaller = functional.interpolate(moved, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    return smaller * draws(0.6, 1.0).view(-1, 1, 1, 1)
