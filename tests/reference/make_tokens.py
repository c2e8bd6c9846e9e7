#!/usr/bin/env python3
# make_tokens.py: token ids of a thousand hard strings, by transformers.
# SPDX-License-Identifier: LGPL-2.1-or-later
#
#   python3 tests/reference/make_tokens.py SHARED [OUT]
#
# SHARED holds tokenizers/{clip-vit-large-patch14,t5-v1_1-xxl} and
# tiny-flux-emoji/{tokenizer,tokenizer_2}. OUT (tests/data/tokens.safetensors):
#   text     U8 [bytes]  the strings in UTF-8, one after the other
#   text.end I32 [n]     where each ends
#   RUN.ids  U16 [total] ids of all strings in run RUN, without the padding
#   RUN.end  I32 [n]     where those of each string end
# and in the metadata for each RUN of "runs": RUN.kind (clip, t5), RUN.folder below
# SHARED, RUN.max_length, RUN.pad.
#
# --compare PROGRAM SEED N: instead of writing, draws N random strings and compares with
# PROGRAM (tests/flux/encode-lines), which prints the ids of hex strings on its input.
import os
import random
import subprocess
import sys
import unicodedata

import numpy as np
from safetensors.numpy import save_file
from transformers import CLIPTokenizer, T5Tokenizer

RUNS = [  # name, kind, folder, max_length
    ("clip", "clip", "tokenizers/clip-vit-large-patch14", 77),
    ("t5", "t5", "tokenizers/t5-v1_1-xxl", 512),
    ("t5_short", "t5", "tokenizers/t5-v1_1-xxl", 77),
    ("tiny_clip", "clip", "tiny-flux-emoji/tokenizer", 77),
    ("tiny_t5", "t5", "tiny-flux-emoji/tokenizer_2", 512),
    ("tiny_t5_short", "t5", "tiny-flux-emoji/tokenizer_2", 32),
]

PLAIN = """
|a puppy in a pond, alphonse mucha style|A cat.|red apple|Serene raven-haired woman
the quick brown fox jumps over the lazy dog|THE QUICK BROWN FOX|ThE qUiCk|i|I|a|Z|0|!
don't|DON'T|Don’t|we'll we'LL WE'll we’ll|it's IT'S 's 'S|I'm i'd they've you're 'tis
rock'n'roll|'s|'LL|''s|'''ll'''|'s's's't're've'm'll'd|dogs' 'quoted' "double" `tick`
5'10"|1st 2nd 3rd 4TH|3.14159|1,000,000.00|10^9|-42|0x1F|1e-9|12:34:56|2024-02-30
http://example.org/a?b=c&d=%20#e|user@example.org|C:\\dir\\file|/usr/bin/env|a/b//c
&amp; &lt;b&gt; &quot;q&quot; &#39; &nbsp; &eacute; &amp;amp;|<b>bold</b><br/>|{"a":[1,2]}
[brackets] (parens) {braces} <angles>|a_b__c___d|a-b--c---d|...|?!?!|#hashtag @name $5 5% *
snake_case camelCase PascalCase kebab-case SCREAMING|(red:1.3), [blue], ((masterpiece))
supercalifragilisticexpialidocious|pneumonoultramicroscopicsilicovolcanoconiosis
zzzzqqqqxxxx|aaaaaaaaaaaaaaaa|abababababababab|eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee
C++ C# F# .NET|100km/h 37°C 5€ £3 ¥7 ₹9|50/50|1/2|a=b==c===d|x<y>z|~tilde~|^caret^|\\|
"""
SCRIPTS = """
café naïve façade Ångström piñata jalapeño Dvořák Łódź Győr Þór smørrebrød|ČŠŽ čšž|Œuvre œuvre
ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖØÙÚÛÜÝÞ|àáâãäåæçèéêëìíîïðñòóôõöøùúûüýþÿ|ĀāĂăĄą|ǅ ǈ ǋ ǲ|Ǆ ǆ
İstanbul ISPARTA ıspanak İİ iİ|ß ẞ STRASSE straße|ς σ Σ ΟΔΥΣΣΕΥΣ ὈΔΥΣΣΕΎΣ Σίσυφος ΣΣΣ
Привет, мир!|ПРИВЕТ|Ёлка ёлка Й й|Україна її ґ|Ђорђе|Ελληνικά|ΆΈΉΊΌΎΏ|ᾳ ᾼ ᾈ|ἄλφα
你好，世界！|中文字符測試|漢字かな交じり文|カタカナ ﾊﾝｶｸ ｶﾞｷﾞ|ひらがな が ぎ|日本語。、「」|㍿ ㌔ ㍻ ㋿
한국어 텍스트|한국어|각 각 ᄀ가각힣|ㄱㄴㄷ ㅏㅑ|ﾡﾢ ￂ|가나다라마바사
العربية|مَرْحَبًا|لا لآ ﻻ ﷲ ﷺ ﷽|١٢٣٤|۱۲۳۴|עברית שָׁלוֹם|יִּ שׁ שּׁ|فارسی می‌خواهم
हिन्दी नमस्ते|क़ ख़ क़ ड़|क्षि ज्ञ|क्‍ष क्‌ष|क्ष्म्य|१२३|বাংলা ড় ঢ়|தமிழ் கொ|తెలుగు|ಕನ್ನಡ ಕೊ|മലയാളം ക്ഷ|ਪੰਜਾਬੀ ਸ਼|ગુજરાતી|සිංහල ශ්‍රී
ไทย ภาษาไทย กำ น้ำ|๐๑๒๓|ລາວ ຳ|ខ្មែរ|မြန်မာ|བོད་ཡིག ཀྵ|ქართული ႠႡ ᲐᲑ|Հայերեն և|አማርኛ|ᏣᎳᎩ ꭰꭱ|ᐃᓄᒃ|ᠮᠣᠩᠭᠣᠯ
Tiếng Việt Nguyễn ế ễ|Tiếng Việt|Yorùbá ẹ́ ọ̀|ẹ́|Ŵŷ|ʔaχ|ʰʷʲ|ⱥ Ⱥ ⱦ Ⱦ|ꜢꜣꞋ|Ꞔ Ꟶ
Å Å Å|Ω Ω|K K|é é|ệ ệ ệ ệ|ǭ ǭ ǭ|ḍ̇ ḍ̇ ḍ̇|ṩ ṩ ṩ|ñ ñ|ü Ü
"""
SYMBOLS = """
😀 😃🐶🐱|👍🏻👍🏽👍🏿|👨‍👩‍👧‍👦 👩🏽‍🚀 🧑‍🤝‍🧑|🏳️‍🌈 🏴‍☠️ 🏴󠁧󠁢󠁳󠁣󠁴󠁿|🇩🇪🇫🇷🇯🇵 🇩 🇩🇪🇫|❤️ ❤ ❤︎|☺️☺|1️⃣2️⃣#️⃣*️⃣|©️®️™️ ©®™
©‍® ™‍🐶 ㊗‍㊙|🐶‍|‍🐶|‍|👩‍|a‍b|🏻|🫠🫡🫢|🪿🫎🩷|🐦‍⬛|🧌
½ ¼ ⅓ ⅛ ¾cup|① ② ⑩ ⑳ ㉑ ㊿|ⅰⅱⅲ Ⅳ Ⅻ ↀ|x² y³ z¹ H₂O ¹²³|⑴ ⒈ ❶ ➀ ⓪|ⒶⒷ ⓐⓑ 🄰 🅰 🆎|㈠ ㊀ 🈁|〇 〡 〺|༳ ৴ ൰ ꧐ ꤀
ﬁ ﬂ ﬀ ﬃ ﬄ ﬅ ﬆ|ﬁ́ ﬁx|ĳ Ĳ ŉ|ﬓ ﬔ|Ａ ｂ ｃ １ ２ ３ ！ ？|ｆｕｌｌ　ｗｉｄｔｈ|＜/s＞ ＜ｓ＞|￥ ￡ ￦|￭￮ ￣
𝐀𝐁𝐂 𝒜ℬ𝒞 𝔄𝔅ℭ 𝔸𝔹ℂ 𝟘𝟙𝟚 𝖆𝖇𝖈|ℵ ℶ ℏ ℓ № ℡ ™ ℠ Ω K Å|∑∏∫√∞≈≠≤≥ ≠ ≮|←↑→↓⇒⟶|─│┌┐█▓▒░|▁ ▂ ▃ a▁b ▁▁c ▁
“smart” ‘quotes’ «guillemets» „low“|– — ― ‐ ‑ ‒ −|… ‥ ․|• · ・ ‣|† ‡ § ¶|‰ ‱|′ ″ ‴ ⁗|⁄ ⁰⁴ ₀ ₊|´ ` ¨ ˜ ˆ ¸|؟ ، ؛|¿¡
♀ ♂ ♠♣♥♦ ☀☁☂ ☎ ✓ ✗|♪♫|⚡️⚡|★☆|⌘⌥⇧|💯%|🎉🎉🎉|👁️‍🗨️|🕵️‍♂️ 🕵🏽‍♀️|🧑🏿‍🦰
"""
SPECIAL = ["<|startoftext|>", "<|endoftext|>", "<|STARTOFTEXT|>", "<|EndOfText|>", "</s>",
           "<pad>", "<unk>", "<s>", "<extra_id_0>", "<extra_id_3>", "<extra_id_99>",
           "<extra_id_100>", "<extra_id_", "<EXTRA_ID_1>", "＜extra_id_5＞", "＜/s＞",
           "＜unk＞", "＜pad＞", "<|endoftext", "|endoftext|>", "<|endoftext|", "</w>",
           "a</w>", "▁", "</S>", "<extra_id_03>", "<|ＥＮＤＯＦＴＥＸＴ|>", "<|endoftext\u0301|>"]
SPACES = (" \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u1680\u180e\u2000\u2001\u2002\u2003\u2004"
          "\u2005\u2006\u2007\u2008\u2009\u200a\u200b\u2028\u2029\u202f\u205f\u2060\u3000\ufeff")
INVISIBLE = ("\x00\x01\x07\x08\x0e\x1b\x7f\x80\x84\x86\x9f\xad\u034f\u061c\u070f\u115f\u1160"
             "\u17b4\u180b\u180e\u200b\u200c\u200d\u200e\u200f\u202a\u202e\u2060\u2061\u2064"
             "\u2066\u2069\u206f\u3164\ufe00\ufe0e\ufe0f\ufeff\uffa0\ufff0\ufff9\ufffc\ufffd\ufffe"
             "\uffff\U000110bd\U0001bca0\U0001d173\U000e0001\U000e0041\U000e007f\U000e0100"
             "\U000effff\U0001fffe\U0010ffff\ue000\uf8ff\U000f0000\U00100000")
MARKS = ("\u0300\u0301\u0302\u0303\u0307\u0308\u030a\u0323\u0327\u0328\u0334\u0338\u0345\u035c"
         "\u0483\u05b0\u05c1\u064b\u0651\u0670\u093c\u094d\u09bc\u09cd\u0e33\u0e4a\u0eb9\u0f71"
         "\u0f72\u1dc0\u1df6\u20d0\u20e3\u302a\u3099\u309a\ufe20\U0001d165\U0001d16d\U00011938")
WORDS = ("a the of and puppy pond style portrait ornate fox golden hair red apple cat face tiger "
         "banana house heart emoji blue watercolour intricate masterpiece 4k unbelievable "
         "photo-realistic it's don't Mucha OpenMoji naïve café ½ № 日本 привет 😀").split(" ")


def hand_written():
    out = ["", " ", "  ", "\t", "\n", "\r\n", " \n \t ", "\u3000", "\xa0", "\u200b", "\x00", "\ufeff"]
    for block in (PLAIN, SCRIPTS, SYMBOLS):
        for line in block.strip("\n").split("\n"):
            out.append(line)
            out += [s for s in line.split("|") if s]
            if block is SCRIPTS:
                out += [unicodedata.normalize(form, line) for form in ("NFC", "NFD")]
    for s in SPECIAL:
        out += [s, "a%sb" % s, " %s " % s, "%s%s" % (s, s), "!%s!" % s, "x %s y" % s.upper()]
    for c in SPACES:
        out += ["a%sb" % c, "%sa%s" % (c, c), "a %s\t b" % (c * 3)]
    for c in INVISIBLE:
        out += ["a%sb" % c, "cat %s" % c]
    for c in MARKS:
        out += ["e%s" % c, "ﬁ%s½%s x" % (c, c), c + "a"]
    return out


def lengthy():
    return [" " * 5000 + "end", "a" * 3000, "ab " * 400, "the cat " * 300, "é" * 700, "e\u0301" * 500,
            "日本語" * 300, "😀" * 200, "\u0301" * 300, "a" + "\u0323\u0301" * 200, "1234567890" * 60,
            "!" * 400, "?! " * 300, "<extra_id_1>" * 600, "<|endoftext|>" * 100, "x<|endoftext|>" * 50,
            "word\n" * 200, "\n" * 1000, "don't " * 120, "ǅ" * 300, "İ" * 200, "½" * 300, "\x00" * 200,
            "a\x00" * 100, "가" * 300, "가" * 300, "👨‍👩‍👧‍👦" * 60, "🇩🇪" * 120, "क्ष" * 120,
            "supercalifragilisticexpialidocious" * 20, " a" * 75, " a" * 74, " a" * 76, "▁" * 100,
            " ".join(WORDS) + " " + " ".join(reversed(WORDS)), " a" * 510, " a" * 511, " a" * 512,
            " a" * 30, " a" * 31, " a" * 32]


def drawn(r):
    """One random string."""
    kind = r.randrange(10)
    planes = [(0, 0x7F), (0x80, 0x24F), (0x250, 0x7FF), (0x800, 0x1FFF), (0x2000, 0x2BFF),
              (0x2C00, 0xD7FF), (0xE000, 0xFFFF), (0x10000, 0x1FFFF), (0x20000, 0x10FFFF)]
    pick = lambda: chr(r.randint(*r.choice(planes)))
    if kind == 0:
        return "".join(pick() for _ in range(r.randint(1, 24)))
    if kind == 1:  # one plane
        low, high = r.choice(planes[:8])
        return "".join(chr(r.randint(low, high)) for _ in range(r.randint(1, 24)))
    if kind == 2:  # marks on anything
        return "".join(pick() + "".join(r.choice(MARKS) for _ in range(r.randint(0, 3)))
                       for _ in range(r.randint(1, 10)))
    if kind == 3:  # words, odd spaces
        return "".join(r.choice(WORDS) + r.choice(SPACES) * r.randint(1, 4)
                       for _ in range(r.randint(1, 12)))
    if kind == 4:  # special tokens stuck to words
        return "".join(r.choice([r.choice(SPECIAL), r.choice(WORDS), r.choice(SPACES), pick()])
                       for _ in range(r.randint(1, 12)))
    if kind == 5:  # invisible characters
        return "".join(r.choice(WORDS)[:r.randint(0, 4)] + r.choice(INVISIBLE)
                       for _ in range(r.randint(1, 10)))
    if kind == 6:  # printable ASCII
        return "".join(chr(r.randint(32, 126)) for _ in range(r.randint(1, 60)))
    if kind == 7:  # letters only: long unigram and BPE paths
        return "".join(r.choice("aeioustnrlEST ") for _ in range(r.randint(5, 80)))
    if kind == 8:  # pieces of the scripts above, shuffled
        source = SCRIPTS + SYMBOLS
        return "".join(source[i:i + r.randint(1, 4)]
                       for i in (r.randrange(len(source)) for _ in range(r.randint(1, 10))))
    return " ".join(r.choice(WORDS) for _ in range(r.randint(1, 30)))


def strings():
    out = list(dict.fromkeys(hand_written() + lengthy()))
    r = random.Random(20240229)
    while len(out) < 1430:
        s = drawn(r)
        if not any(0xD800 <= ord(c) < 0xE000 for c in s) and s not in out:
            out.append(s)
    return out


def load(shared):
    return {folder: (CLIPTokenizer if kind == "clip" else T5Tokenizer).from_pretrained(
        os.path.join(shared, folder)) for _, kind, folder, _ in RUNS}


def encode(tokenizer, text, max_length):
    e = tokenizer(text, padding="max_length", max_length=max_length, truncation=True)
    n = sum(e.attention_mask)
    assert len(e.input_ids) == max_length
    assert all(i == tokenizer.pad_token_id for i in e.input_ids[n:])
    return e.input_ids[:n]


def write(shared, path):
    tokenizers, texts = load(shared), strings()
    tensors, meta = {}, {"runs": " ".join(r[0] for r in RUNS)}
    data = [t.encode() for t in texts]
    tensors["text"] = np.frombuffer(b"".join(data), np.uint8)
    tensors["text.end"] = np.cumsum([len(d) for d in data]).astype(np.int32)
    for name, kind, folder, max_length in RUNS:
        ids = [encode(tokenizers[folder], t, max_length) for t in texts]
        tensors[name + ".ids"] = np.concatenate([np.array(i, np.uint16) for i in ids])
        tensors[name + ".end"] = np.cumsum([len(i) for i in ids]).astype(np.int32)
        meta.update({name + ".kind": kind, name + ".folder": folder,
                     name + ".max_length": str(max_length),
                     name + ".pad": str(tokenizers[folder].pad_token_id)})
    save_file(tensors, path, meta)
    os.chmod(path, 0o644)
    print("%d strings, %d bytes of text, %s" % (len(texts), tensors["text.end"][-1], path))


def compare(shared, program, seed, n):
    tokenizers, r, bad = load(shared), random.Random(seed), 0
    texts = []
    while len(texts) < n:
        s = drawn(r)
        if not any(0xD800 <= ord(c) < 0xE000 for c in s):
            texts.append(s)
    lines = "".join(t.encode().hex() + "\n" for t in texts)
    for name, kind, folder, max_length in RUNS:
        if "short" in name:
            continue
        ours = subprocess.run([program, kind, os.path.join(shared, folder), str(max_length)],
                              input=lines, text=True, capture_output=True, check=True)
        for text, line in zip(texts, ours.stdout.splitlines()):
            ids = encode(tokenizers[folder], text, max_length)
            got = [int(x) for x in line.split()]
            if got[:len(ids)] != ids:
                bad += 1
                if bad <= 20:
                    print("%s %s\n  want %s\n  got  %s" % (name, ascii(text), ids, got[:len(ids)]))
    print("%d mismatches in %d strings" % (bad, n))
    return bad != 0


if __name__ == "__main__":
    if "--compare" in sys.argv:
        sys.exit(compare(sys.argv[1], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])))
    here = os.path.dirname(os.path.abspath(__file__))
    write(sys.argv[1], sys.argv[2] if len(sys.argv) > 2
          else os.path.join(here, "..", "data", "tokens.safetensors"))
