#!/usr/bin/env python3
# make_unicode.py: writes flux/text/{unicode,grapheme}-tables.c. SPDX-License-Identifier: LGPL-2.1-or-later
#
# The fast tokenisers of transformers are built with four Unicode versions at once (its
# regular expressions, its NFC, Rust's lower case and its grapheme clusters each have
# their own), and the system's GLib has a fifth. So the tables are read off the reference
# itself, code point by code point, rather than off a version of the standard.
#
#   python3 tests/reference/make_unicode.py
#
# Needs: tokenizers, sentencepiece, regex.
import io
import os
import tempfile
import textwrap
import unicodedata

import regex
import sentencepiece
import tokenizers
from tokenizers import Regex, normalizers

CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def ranges(code_points):
    out = []
    for c in sorted(code_points):
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def matched(pattern):
    erase = normalizers.Replace(Regex(pattern), "")
    return {c for c in CODE_POINTS if erase.normalize_str(chr(c)) == ""}


def lower_rules():
    """(first, last, step, delta): every step-th code point moves by delta."""
    lower = normalizers.Lowercase()
    pairs, special = [], {}
    for c in CODE_POINTS:
        low = lower.normalize_str(chr(c))
        if len(low) > 1:
            special[c] = low
        elif ord(low) != c:
            pairs.append((c, ord(low) - c))
    assert special == {0x130: "i\u0307"}, special
    rules = []
    for c, delta in pairs:
        last = rules[-1] if rules else None
        if last and last[3] == delta and last[0] == last[1] and c - last[1] in (1, 2):
            last[1], last[2] = c, c - last[1]
        elif last and last[3] == delta and c - last[1] == last[2]:
            last[1] = c
        else:
            rules.append([c, c, 1, delta])
    return rules


def normalisable():
    """Code points that the reference's (older) NFC decomposes, reorders or composes."""
    nfd, nfc = normalizers.NFD(), normalizers.NFC()
    out, seconds = set(), set()
    for c in CODE_POINTS:
        s = chr(c)
        d = nfd.normalize_str(s)
        if d != s:
            out.add(c)
            # What follows in a decomposition may compose with what comes before it.
            seconds.update(ord(x) for x in d[1:])
        elif (nfd.normalize_str("a" + s + "\u0334") != "a" + s + "\u0334"
              or nfd.normalize_str("a\u0345" + s) != "a\u0345" + s):
            out.add(c)
    out |= seconds
    # What GLib knows of those must be what the reference knows.
    for c in sorted(out):
        assert nfd.normalize_str(chr(c)) == unicodedata.normalize("NFD", chr(c)), hex(c)
        assert nfc.normalize_str(chr(c)) == unicodedata.normalize("NFC", chr(c)), hex(c)
    return out


def precompiled(rules):
    """A Precompiled normaliser with only these rules {source: target}."""
    with tempfile.TemporaryDirectory() as tmp:
        path = os.path.join(tmp, "rules.tsv")
        with open(path, "w") as f:
            for source, target in rules.items():
                f.write(" ".join("%X" % ord(c) for c in source) + "\t"
                        + " ".join("%X" % ord(c) for c in target) + "\n")
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["ab ab ba c"] * 20), model_writer=model, vocab_size=8,
            hard_vocab_limit=False, normalization_rule_tsv=path, minloglevel=2)
    from sentencepiece import sentencepiece_model_pb2
    proto = sentencepiece_model_pb2.ModelProto.FromString(model.getvalue())
    return normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap)


def prop(name):
    r = regex.compile(r"\p{%s}" % name)
    return {c for c in CODE_POINTS if r.match(chr(c))}


def grapheme_classes():
    """Which code points join the one before (or after) them, as the reference's
    normaliser shows: a cluster under six bytes whose beginning has a rule becomes that
    rule's target, the rest of it is dropped."""
    first = precompiled({"a": "b", "\u0915": "x"})
    joins = {c for c in CODE_POINTS if first.normalize_str("a" + chr(c)) == "b"}
    mark, spacing, prepend = prop("GCB=Extend"), prop("GCB=SpacingMark"), prop("GCB=Prepend")
    linker, consonant = prop("InCB=Linker"), prop("InCB=Consonant")
    assert joins <= mark | spacing | {0x200D}, joins - mark - spacing
    assert first.normalize_str("\u0915\u094d\u0915\u0300") == "x\u094dx\u0300", "GB9c"
    leads = precompiled({chr(c): "P" for c in prepend})
    prepend = {c for c in prepend if leads.normalize_str(chr(c) + "a") == "P"}
    return [("EXTEND", (mark & joins) - {0x200D} - linker),
            ("LINKER", mark & joins & linker),
            ("SPACING", spacing & joins),
            ("PREPEND", prepend),
            ("CONSONANT", consonant),
            ("PICTURE", prop("ExtPict")),
            ("CONTROL", prop("GCB=Control"))]


def table(f, name, kind, numbers):
    f.write("\nconst %s flux_unicode_%s[] = {\n" % (kind, name))
    f.write(textwrap.fill(" ".join(numbers), 88, break_long_words=False,
                          initial_indent="  ", subsequent_indent="  "))
    f.write("\n};\nconst guint flux_unicode_%s_n = G_N_ELEMENTS (flux_unicode_%s);\n"
            % (name, name))


def spans(f, name, code_points):
    table(f, name, "guint32", ["0x%X,0x%X," % tuple(r) for r in ranges(code_points)])


HEAD = """/* %s: %s.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 * Written by tests/reference/make_unicode.py (tokenizers %s, regex %s); not edited.
 */
#include "flux/text/unicode-tables.h"

/* clang-format off */
"""


def start(root, path, what):
    f = open(os.path.join(root, path), "w")
    f.write(HEAD % (path, what, tokenizers.__version__, regex.__version__))
    return f


def main():
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
    with start(root, "flux/text/unicode-tables.c",
               "letters, digits, spaces and cases of the reference") as f:
        spans(f, "letters", matched(r"\p{L}"))
        spans(f, "numbers", matched(r"\p{N}"))
        assert matched(r"\s") == prop("White_Space")
        spans(f, "spaces", matched(r"\s"))
        spans(f, "normalisable", normalisable())
        table(f, "lower", "gint32", ["0x%X,0x%X,%d,%d," % tuple(r) for r in lower_rules()])
    with start(root, "flux/text/grapheme-tables.c", "grapheme clusters of the reference") as f:
        for name, members in grapheme_classes():
            spans(f, name.lower(), members)


if __name__ == "__main__":
    main()
