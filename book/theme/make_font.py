"""Cut the maths font down to the characters a book on Gaussian processes needs.

The font in ``static/fonts`` was made once with this script from STIX Two Math 2.12 (npm package
``@fontsource/stix-two-math`` 5.3.0, licence in ``static/fonts/OFL.txt``). It needs ``fonttools`` and ``brotli``
and is not part of the build:

    python -m book.theme.make_font stix-two-math-latin-400-normal.woff2 book/theme/static/fonts/stix-two-math.woff2
"""

import sys

CHARACTERS = (
    "20-7E A0-FF 131 237 2B0-2FF 300-36F 370-3FF 2000-206F 20D0-20F0 2100-214F 2190-21FF 2200-22FF 2300-2323 "
    "2329-232A 239B-23B9 23DC-23E1 2500-2502 25A0-25FF 27C2 27E6-27FF 2980-2985 2A00-2A0C 2A7D-2A7E 2AAF-2AB0 "
    "1D400-1D7FF"
)
PRIME, PRIME_SCALE, PRIME_DROP = 0x2032, 1.45, 520  # font units: 1000 to the em


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
    spans = [span.split("-") for span in CHARACTERS.split()]
    cutter.populate(unicodes=[code for s in spans for code in range(int(s[0], 16), int(s[-1], 16) + 1)])
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
