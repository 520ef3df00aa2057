"""Cut the maths font down to the characters a book on Gaussian processes needs.

The font in ``static/fonts`` was made once with this script from STIX Two Math 2.12 (npm package
``@fontsource/stix-two-math`` 5.3.0, licence in ``static/fonts/OFL.txt``). It needs ``fonttools`` and ``brotli``
and is not part of the build:

    python -m book.theme.make_font stix-two-math-latin-400-normal.woff2 book/theme/static/fonts/stix-two-math.woff2
"""

import sys

# Text and accents; Greek; punctuation and operators that formulas of the book and of its likes hold; of the alphabets
# for maths the bold, the italic, the script and the double-struck. A test says when a formula needs another.
CHARACTERS = (
    "20-7E A0-B1 B4 B7 D7 F7 131 237 2C6 2C7 2D8-2DC 302-304 307-308 30C 338 391-3A9 3B1-3C9 3D1 3D5-3D6 3F1 3F5 2016 "
    "2020-2022 2026 2032-2034 2061-2064 20D7 2102 210D 2113 2115 211A 211D 2124 2190-2194 21A6 21D0-21D4 2200-2209 "
    "220F-2213 2217 221A 221D-221E 2223 2225-222B 2248 2250 2254 2260-2265 226A-226B 227A-227B 2282-2287 2295-2297 "
    "22A4-22A5 22C5 22EE-22F1 2308-230B 23DE-23DF 27E8-27E9 2AAF-2AB0 1D400-1D467 1D49C-1D4CF 1D538-1D56B 1D6A4-1D6E1 "
    "1D6FC-1D71B"
)
PRIME, PRIME_SCALE, PRIME_DROP = 0x2032, 1.45, 520  # font units: 1000 to the em


def codes() -> set[int]:
    """The code points of the font's characters."""
    spans = [span.split("-") for span in CHARACTERS.split()]
    return {code for span in spans for code in range(int(span[0], 16), int(span[-1], 16) + 1)}


def main(source: str, target: str) -> None:
    """Write the smaller font.

    A browser sets the prime of x' as a superscript, smaller and higher; the font's prime is already both.
    It is therefore enlarged and lowered here, so that no browser needs a style rule for it.

    Args:
        source: the full font, any format that fonttools reads.
        target: where the woff2 file goes.
    """
    from fontTools import subset
    from fontTools.pens.transformPen import TransformPen
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    options = subset.Options(flavor="woff2", hinting=False, layout_features=[], notdef_outline=True)
    font = subset.load_font(source, options)
    cutter = subset.Subsetter(options)
    cutter.populate(unicodes=codes())
    cutter.subset(font)

    name = font.getBestCmap()[PRIME]
    pen = TTGlyphPen(font.getGlyphSet())
    font["glyf"][name].draw(TransformPen(pen, (PRIME_SCALE, 0, 0, PRIME_SCALE, 0, -PRIME_DROP)), font["glyf"])
    font["glyf"][name] = glyph = pen.glyph()
    glyph.recalcBounds(font["glyf"])
    width, left = font["hmtx"][name]
    font["hmtx"][name] = (round(width * PRIME_SCALE), round(left * PRIME_SCALE))
    subset.save_font(font, target, options)


if __name__ == "__main__":
    main(*sys.argv[1:])
