#!/usr/bin/env python3
# Writes tests/data/images: small pictures of every kind the decoders know, and
# images.json with what PIL makes of them. SPDX-License-Identifier: LGPL-2.1-or-later
#
#   python3 -m venv venv && venv/bin/pip install pillow numpy simplejpeg
#   venv/bin/python tests/reference/make_images.py tests/data/images
"""Every expected value is PIL's own: the key is sha256 (image.tobytes ()) after
exif_transpose, as the reference takes it; rgb_white and rgb_colour are PIL's
paste (image, mask=alpha) on a ground of white and of 0x204080; rgb_opaque is
convert ("RGB"). Two exceptions, where PIL does not follow the PNG standard: its conversion
of 16-bit grey clips at 255, the expected value is the high byte; and it compares the key
colour of 2-, 4- and 16-bit pictures with samples of 8 bits, the expected value compares
samples of the file's depth. `resampled` and `cropped` are Image.resize (BILINEAR)."""
import hashlib
import io
import json
import os
import struct
import sys
import zlib

import numpy as np
import simplejpeg
from PIL import Image, ImageOps
import PIL

OUT = sys.argv[1]
RNG = np.random.default_rng(20)
os.makedirs(OUT, exist_ok=True)


def picture(w, h, channels):
    """Smooth colour with an edge and some noise, uint8 [h, w, channels]."""
    y, x = np.mgrid[0:h, 0:w].astype(float)
    planes = []
    for c in range(channels):
        p = 127 + 90 * np.sin(x / (3.0 + c) + c) * np.cos(y / (4.0 + c)) + 30 * (x > y)
        planes.append(p + RNG.normal(0, 12, (h, w)))
    return np.clip(np.stack(planes, -1), 0, 255).astype(np.uint8)


# ---- PNG, written by hand: PIL writes neither interlaced nor most bit depths ----

def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(
        ">I", zlib.crc32(kind + data))


def pack_rows(samples, depth):
    """[h, w, c] samples -> list of packed rows."""
    h, w, c = samples.shape
    flat = samples.reshape(h, w * c)
    if depth == 16:
        return [row.astype(">u2").tobytes() for row in flat]
    if depth == 8:
        return [row.astype(np.uint8).tobytes() for row in flat]
    bits = ((flat[..., None] >> np.arange(depth - 1, -1, -1)) & 1).reshape(h, -1)
    return [np.packbits(row.astype(np.uint8)).tobytes() for row in bits]


def filter_rows(rows, bpp):
    """Each PNG filter in turn."""
    out = b""
    prev = bytes(len(rows[0])) if rows else b""
    for n, row in enumerate(rows):
        kind = n % 5
        enc = bytearray()
        for i, v in enumerate(row):
            a = row[i - bpp] if i >= bpp else 0
            b = prev[i]
            c = prev[i - bpp] if i >= bpp else 0
            if kind == 4:
                p = a + b - c
                pa, pb, pc = abs(p - a), abs(p - b), abs(p - c)
                pred = a if pa <= pb and pa <= pc else b if pb <= pc else c
            else:
                pred = (0, a, b, (a + b) // 2)[kind]
            enc.append((v - pred) & 255)
        out += bytes([kind]) + bytes(enc)
        prev = row
    return out


ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4),
         (1, 0, 2, 2), (0, 1, 1, 2)]


def png(samples, depth, colour, interlace=False, before=b"", after=b""):
    h, w, c = samples.shape
    bpp = max(1, depth * c // 8)
    if interlace:
        data = b""
        for x0, y0, dx, dy in ADAM7:
            part = samples[y0::dy, x0::dx]
            if part.size:
                data += filter_rows(pack_rows(part, depth), bpp)
    else:
        data = filter_rows(pack_rows(samples, depth), bpp)
    z = zlib.compress(data, 9)
    half = len(z) // 2
    return (b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, depth, colour, 0, 0,
                                         int(interlace)))
            + before + chunk(b"IDAT", z[:half]) + chunk(b"IDAT", z[half:]) + after
            + chunk(b"IEND", b""))


def exif(orientation, endian="<"):
    head = b"II*\0\x08\0\0\0" if endian == "<" else b"MM\0*\0\0\0\x08"
    return head + struct.pack(endian + "H", 2) \
        + struct.pack(endian + "HHIHH", 0x0100, 3, 1, 7, 0) \
        + struct.pack(endian + "HHIHH", 0x0112, 3, 1, orientation, 0) \
        + struct.pack(endian + "I", 0)


def xmp(orientation):
    return (b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="'
            + str(orientation).encode() + b'"/></x:xmpmeta>')


files = {}
masks = {}  # where a key colour makes a picture transparent


def add(name, data):
    files[name] = data
    with open(os.path.join(OUT, name), "wb") as f:
        f.write(data)


def saved(image, fmt, **options):
    b = io.BytesIO()
    image.save(b, fmt, **options)
    return b.getvalue()


def make_png():
    w, h = 19, 13
    for depth in (1, 2, 4, 8, 16):
        grey = picture(w, h, 1).astype(np.uint32) * 257 >> (16 - depth)
        add(f"grey{depth}.png", png(grey, depth, 0))
        add(f"grey{depth}-interlaced.png", png(grey, depth, 0, True))
        key = struct.pack(">H", int(grey[3, 4, 0]))
        masks[f"grey{depth}-trns.png"] = grey[..., 0] == grey[3, 4, 0]
        add(f"grey{depth}-trns.png", png(grey, depth, 0, before=chunk(b"tRNS", key)))
    for depth in (1, 2, 4, 8):
        n = min(2 ** depth, 200)
        index = RNG.integers(0, n, (h, w, 1))
        plte = chunk(b"PLTE", RNG.integers(0, 256, 3 * n, dtype=np.uint8).tobytes())
        add(f"palette{depth}.png", png(index, depth, 3, before=plte))
        add(f"palette{depth}-interlaced.png", png(index, depth, 3, True, before=plte))
        trns = RNG.integers(0, 256, max(1, n // 2), dtype=np.uint8).tobytes()
        add(f"palette{depth}-trns.png",
            png(index, depth, 3, before=plte + chunk(b"tRNS", trns)))
    one = bytes([255, 255, 0])
    add("palette-one-transparent.png",
        png(index % 4, 8, 3, before=chunk(b"PLTE", bytes(range(12))) + chunk(b"tRNS", one)))
    add("palette-index-beyond.png",
        png(index, 8, 3, before=chunk(b"PLTE", bytes(range(10, 40)))))
    for depth in (8, 16):
        s = (lambda c: picture(w, h, c).astype(np.uint32) * 257 >> (16 - depth)) \
            if depth == 8 else (lambda c: RNG.integers(0, 65536, (h, w, c)))
        ga, rgb, rgba = s(2), s(3), s(4)
        ga[0, :4, 1] = rgba[0, :4, 3] = 0
        ga[1, :4, 1] = rgba[1, :4, 3] = 2 ** depth - 1
        add(f"grey-alpha{depth}.png", png(ga, depth, 4))
        add(f"grey-alpha{depth}-interlaced.png", png(ga, depth, 4, True))
        add(f"rgb{depth}.png", png(rgb, depth, 2))
        add(f"rgb{depth}-interlaced.png", png(rgb, depth, 2, True))
        key = struct.pack(">HHH", *(int(v) for v in rgb[5, 6]))
        rgb[7, 1:9] = rgb[5, 6]
        masks[f"rgb{depth}-trns.png"] = (rgb == rgb[5, 6]).all(-1)
        add(f"rgb{depth}-trns.png", png(rgb, depth, 2, before=chunk(b"tRNS", key)))
        add(f"rgba{depth}.png", png(rgba, depth, 6))
        add(f"rgba{depth}-interlaced.png", png(rgba, depth, 6, True))
    add("one-pixel.png", png(picture(1, 1, 3), 8, 2))
    add("one-pixel-interlaced.png", png(picture(1, 1, 3), 8, 2, True))
    add("one-column.png", png(picture(1, 40, 3), 8, 2))
    bits = RNG.integers(0, 2, (9, 11, 1))
    rgb = picture(11, 9, 3)
    add("grey1-turned.png", png(bits, 1, 0, before=chunk(b"eXIf", exif(6))))
    add("exif-after.png", png(rgb, 8, 2, after=chunk(b"eXIf", exif(8, ">"))))
    raw = b"Exif\0\0" + exif(5)
    profile = b"\nexif\n%8d\n" % len(raw) + b"\n".join(
        raw.hex().encode()[i:i + 72] for i in range(0, 2 * len(raw), 72)) + b"\n"
    add("raw-profile.png", png(rgb, 8, 2, before=chunk(
        b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(profile))))
    add("xmp.png", png(rgb, 8, 2, before=chunk(
        b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(3))))
    alpha = picture(11, 9, 4)
    add("rgba-turned.png", png(alpha, 8, 6, before=chunk(b"eXIf", exif(7))))
    key = struct.pack(">HHH", *(int(v) for v in rgb[2, 3]))
    add("rgb-trns-turned.png", png(rgb, 8, 2, before=chunk(b"tRNS", key)
                                   + chunk(b"eXIf", exif(6))))


def patch_adobe(data, transform):
    """Another colour transform in the APP14 marker; None takes the marker out."""
    at = data.index(b"\xff\xee\x00\x0eAdobe")
    if transform is None:
        return data[:at] + data[at + 16:]
    return data[:at + 15] + bytes([transform]) + data[at + 16:]


def make_jpeg():
    rgb = Image.fromarray(picture(37, 29, 3))
    for name, sub in (("444", 0), ("422", 1), ("420", 2)):
        add(f"rgb-{name}.jpg", saved(rgb, "JPEG", quality=85, subsampling=sub))
        add(f"progressive-{name}.jpg",
            saved(rgb, "JPEG", quality=70, subsampling=sub, progressive=True))
    for sub in ("440", "411"):
        add(f"rgb-{sub}.jpg", simplejpeg.encode_jpeg(
            np.ascontiguousarray(rgb), quality=80, colorspace="RGB", colorsubsampling=sub))
    add("rgb-stored.jpg", saved(rgb, "JPEG", quality=80, keep_rgb=True))
    add("grey.jpg", saved(rgb.convert("L"), "JPEG", quality=80))
    add("grey-progressive.jpg", saved(rgb.convert("L"), "JPEG", progressive=True))
    add("restarts.jpg", saved(rgb, "JPEG", quality=60, restart_marker_blocks=2))
    cmyk = Image.fromarray(picture(21, 17, 4), "CMYK")
    data = saved(cmyk, "JPEG", quality=85)
    add("cmyk.jpg", data)
    add("ycck.jpg", patch_adobe(data, 2))
    add("cmyk-no-adobe.jpg", patch_adobe(data, None))
    add("cmyk-turned.jpg", saved(cmyk, "JPEG", exif=b"Exif\0\0" + exif(6)))
    for w, h in ((1, 1), (2, 3), (16, 16), (17, 33), (8, 1)):
        add(f"size-{w}x{h}.jpg", saved(Image.fromarray(picture(w, h, 3)), "JPEG",
                                       quality=90, subsampling=2))
    small = Image.fromarray(picture(13, 10, 3))
    for o in range(1, 9):
        add(f"orientation-{o}.jpg",
            saved(small, "JPEG", quality=80, exif=b"Exif\0\0" + exif(o, "<>"[o % 2])))
    add("orientation-9.jpg", saved(small, "JPEG", exif=b"Exif\0\0" + exif(9)))
    add("orientation-xmp.jpg", saved(small, "JPEG", xmp=xmp(6)))
    add("orientation-both.jpg",
        saved(small, "JPEG", exif=b"Exif\0\0" + exif(3), xmp=xmp(6)))


def make_webp():
    rgb = Image.fromarray(picture(33, 21, 3))
    rgba = Image.fromarray(picture(31, 23, 4))
    for name, image in (("rgb", rgb), ("rgba", rgba)):
        add(f"{name}-lossy.webp", saved(image, "WEBP", quality=70))
        add(f"{name}-lossless.webp", saved(image, "WEBP", lossless=True, exact=True))
    add("one-pixel.webp", saved(Image.fromarray(picture(1, 1, 3)), "WEBP"))
    add("turned.webp", saved(rgb, "WEBP", quality=60, exif=b"Exif\0\0" + exif(6)))
    add("xmp.webp", saved(rgba, "WEBP", quality=60, xmp=xmp(8)))
    add("animated.webp", saved(rgb, "WEBP", save_all=True, quality=50,
                               append_images=[Image.fromarray(picture(33, 21, 3))]))
    add("animated-alpha.webp", saved(rgba, "WEBP", save_all=True, lossless=True,
                                     append_images=[rgba.rotate(180)]))
    # Opaque, but the file says RGBA: the lossless coder of an opaque RGBA picture.
    add("rgba-opaque.webp", saved(rgb.convert("RGBA"), "WEBP", lossless=True))


def sha(data):
    return hashlib.sha256(data).hexdigest()


def over(image, rgb_of, ground):
    out = Image.new("RGB", image.size, ground)
    if image.has_transparency_data:
        out.paste(rgb_of, mask=image.convert("RGBA").getchannel("A"))
    else:
        out.paste(rgb_of)
    return sha(out.tobytes())


def to_rgb(image):
    if image.mode == "I;16":
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")


def expect(name):
    raw = Image.open(io.BytesIO(files[name]))
    raw.load()
    image = raw
    # datasets/features/image.py decode_example()
    if image.getexif().get(0x0112) is not None:
        image = ImageOps.exif_transpose(image)
    rgb = to_rgb(image)
    entry = {"mode": image.mode, "width": image.width, "height": image.height,
             "alpha": raw.has_transparency_data, "key": sha(image.tobytes()),
             "key_unturned": sha(raw.tobytes()), "rgb_opaque": sha(rgb.tobytes())}
    if name in masks:
        mask = Image.fromarray(np.where(masks[name], 0, 255).astype(np.uint8))
        for field, ground in (("rgb_white", (255, 255, 255)), ("rgb_colour", (32, 64, 128))):
            out = Image.new("RGB", image.size, ground)
            out.paste(rgb, mask=mask)
            entry[field] = sha(out.tobytes())
    else:
        entry["rgb_white"] = over(image, rgb, (255, 255, 255))
        entry["rgb_colour"] = over(image, rgb, (32, 64, 128))
    return entry


def make_resampled():
    cases = []
    for name in ("rgb-444.jpg", "rgb8.png", "one-column.png", "one-pixel.png",
                 "rgb-lossy.webp", "palette8.png"):
        image = Image.open(io.BytesIO(files[name])).convert("RGB")
        w, h = image.size
        for size in ((16, 16), (32, 48), (w, 16), (16, h), (w, h), (7, 64), (100, 80),
                     (w * 3, h * 2), (5, 3), (1, 1)):
            out = image.resize(size, Image.Resampling.BILINEAR)
            cases.append({"file": name, "width": size[0], "height": size[1],
                          "sha256": sha(out.tobytes())})
    return cases


def make_cropped():
    """torchvision's Resize (size) and CenterCrop (size) on PIL pictures, and the
    flip."""
    cases = []
    for name in ("rgb-444.jpg", "orientation-6.jpg", "one-column.png", "size-17x33.jpg"):
        image = Image.open(io.BytesIO(files[name]))
        image = ImageOps.exif_transpose(image).convert("RGB")
        for size in (16, 32, 48):
            w, h = image.size
            short, long = min(w, h), max(w, h)
            side = int(size * long / short)
            scaled = (size, side) if w <= h else (side, size)
            out = image.resize(scaled, Image.Resampling.BILINEAR)
            left = int(round((out.width - size) / 2.0))
            top = int(round((out.height - size) / 2.0))
            out = out.crop((left, top, left + size, top + size))
            cases.append({"file": name, "size": size, "scaled_width": scaled[0],
                          "scaled_height": scaled[1], "x": left, "y": top,
                          "sha256": sha(out.tobytes()),
                          "flipped": sha(ImageOps.mirror(out).tobytes())})
    return cases


make_png()
make_jpeg()
make_webp()
result = {"pillow": PIL.__version__,
          "images": {name: expect(name) for name in sorted(files)},
          "resampled": make_resampled(), "cropped": make_cropped()}
with open(os.path.join(OUT, "images.json"), "w") as f:
    json.dump(result, f, indent=1)
    f.write("\n")
