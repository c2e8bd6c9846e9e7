#!/usr/bin/env python3
# make_tokenizer_seeds.py: writes tests/fuzz/seeds-tokenizers (see consume-tokenizers.h).
# SPDX-License-Identifier: LGPL-2.1-or-later
#
#   python3 tests/reference/make_tokenizer_seeds.py
#
# Needs: sentencepiece, protobuf.
import io
import json
import os
import tempfile

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fuzz", "seeds-tokenizers")
TEXTS = ["a cat's <|endoftext|>1 é e\u0301\u0323 <extra_id_3></s>  don't\x00",
         "\u1100\u1161\u11a8 \ufb01\u0301 \u0915\u094d\u0915 \U0001F469\u200d\U0001F680"
         " \U0001F1E9\U0001F1EA \r\n\u0130\u03a3",
         "<|STARTOFTEXT|>!<|EndOfText|>!\uff1c/s\uff1e \u2581a\u2581 \u3000"]
# In code points: é to e, full-width < to <, colon to two spaces, soft hyphen to nothing.
RULES = "E9\t65\nFF1C\t3C\n3A\t20 20\nAD\t\n"


def write(name, data):
    with open(os.path.join(OUT, name), "wb") as f:
        f.write(data)


def config(begin, end, added):
    return json.dumps({"bos_token": begin, "eos_token": {"content": end, "lstrip": False},
                       "pad_token": end, "unk_token": end,
                       "added_tokens_decoder": added}).encode()


def clip():
    vocab = {"a": 0, "b": 1, "a</w>": 2, "b</w>": 3, "Ã": 4, "©</w>": 5, "ab": 6,
             "ab</w>": 7, "1</w>": 8, "<s>": 9, "<x>": 10, "\u0122": 11}
    added = {"9": {"content": "<s>", "normalized": True, "rstrip": True},
             "10": {"content": "<x>", "lstrip": True}}
    return b"\xff".join([config("<s>", "<x>", added), json.dumps(vocab).encode(),
                         b"#version: 0.2\na b\na b</w>\n"])


def spiece():
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as f:
        f.write(RULES)
        f.flush()
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["ab ab ba c"] * 20), model_writer=model, vocab_size=9,
            hard_vocab_limit=False, normalization_rule_tsv=f.name, minloglevel=2, pad_id=0,
            eos_id=1, unk_id=2, bos_id=-1)
    proto = sentencepiece_model_pb2.ModelProto.FromString(model.getvalue())
    proto.ClearField("trainer_spec")
    proto.trainer_spec.model_type = 1
    proto.normalizer_spec.ClearField("normalization_rule_tsv")  # a temporary name
    return proto


def main():
    os.makedirs(OUT, exist_ok=True)
    write("clip", b"c" + clip())
    proto = spiece()
    added = {"1": {"content": "</s>"},
             str(len(proto.pieces)): {"content": "<x>", "normalized": True}}
    write("t5", b"s" + config(None, "</s>", added) + b"\xff" + proto.SerializeToString())
    write("t5-bare", b"s\xff" + proto.SerializeToString())
    for i, text in enumerate(TEXTS):
        write("text-%d" % i, b"t" + text.encode())
    write("text-bad", b"tcaf\xe9")


if __name__ == "__main__":
    main()
