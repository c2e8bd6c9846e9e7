/* flux/image/image.h: pictures from files, as PIL decodes them. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * The reference identifies a picture by sha256 (image.tobytes ()), the decoded pixels in
 * the file's own mode after the EXIF orientation, so pictures are kept in that mode here
 * and are turned into RGB afterwards. What PIL makes of which file (Pillow 13.0,
 * PngImagePlugin.py _MODES, JpegImagePlugin.py SOF and _open, WebPImagePlugin.py,
 * _webp.c):
 *
 *   PNG grey 1 bit          1     bits, rows padded to bytes     grey 2, 4, 8 bits     L
 *   PNG grey 16 bits        I;16  little endian                  palette, any depth    P
 *   PNG grey + alpha 8      LA    ...16 bits: RGBA, high bytes
 *   PNG RGB, RGBA           RGB, RGBA; of 16 bits the high bytes
 *   JPEG 1, 3, 4 components L, RGB, CMYK (always inverted, as Adobe writes it)
 *   WebP                    RGB, or RGBA when the file says it has alpha
 *
 * A PNG's tRNS does not change the mode. Of animations the first picture is read.
 *
 * Every function is safe on hostile bytes: sizes are checked against max_pixels before
 * anything of that size is allocated. */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

/* Twice PIL's Image.MAX_IMAGE_PIXELS: where PIL's warning becomes an error. */
#define FLUX_IMAGE_MAX_PIXELS (2 * (1024 * 1024 * 1024 / 4 / 3))

typedef enum {
  FLUX_IMAGE_FORMAT_UNKNOWN,
  FLUX_IMAGE_FORMAT_PNG,
  FLUX_IMAGE_FORMAT_JPEG,
  FLUX_IMAGE_FORMAT_WEBP,
  FLUX_IMAGE_FORMAT_OTHER, /* GIF, BMP, TIFF, HEIF, AVIF, JPEG XL, ...: not decoded */
} FluxImageFormat;

typedef enum {
  FLUX_IMAGE_1,   /* one byte a pixel, 0 or 255 (PIL packs eight in tobytes()) */
  FLUX_IMAGE_L,   /* grey */
  FLUX_IMAGE_P,   /* index into palette */
  FLUX_IMAGE_I16, /* grey, two bytes, little endian */
  FLUX_IMAGE_LA,  /* grey, alpha */
  FLUX_IMAGE_RGB,
  FLUX_IMAGE_RGBA, /* alpha is not premultiplied */
  FLUX_IMAGE_CMYK, /* 255 is full ink */
} FluxImageMode;

typedef struct {
  FluxImageFormat format;
  FluxImageMode mode;
  gint width, height;
  guint8 *pixels;       /* [height, width, flux_image_pixel_size (mode)], no padding */
  guint8 (*palette)[4]; /* P: 256 entries of RGBA, those beyond the file's are black */
  guint8 *mask; /* [height, width] alpha out of a PNG's tRNS key colour, or NULL */
  gboolean has_alpha;
  gint orientation; /* EXIF, 1 to 8; 1 once it has been applied, or when absent */
  gchar *warning;   /* the file is damaged, but could be read: what is wrong; or NULL */
} FluxImage;

/* By the first bytes. */
FluxImageFormat flux_image_sniff (const guint8 *data, gsize size);
/* "PNG", "JPEG", "WebP"; NULL for the others. */
const gchar *flux_image_format_name (FluxImageFormat format);

/* Decodes data as what flux_image_sniff() sees in it. Not rotated yet. NULL and
 * FLUX_ERROR_FORMAT, with a sentence that starts with `name` (the file), when it is
 * damaged, cut short, of another format, or has more than max_pixels pixels (0: no
 * limit). */
FluxImage *flux_image_decode (const guint8 *data, gsize size, const gchar *name,
    guint64 max_pixels, GError **error);
void flux_image_free (FluxImage *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FluxImage, flux_image_free)

/* Turns and mirrors the picture upright, as PIL's ImageOps.exif_transpose() does. FALSE
 * when memory is short. */
gboolean flux_image_apply_orientation (FluxImage *self);

/* sha256 (image.tobytes ()) in hex; g_free() it. */
gchar *flux_image_dup_key (const FluxImage *self);

/* Writes RGB, rows `stride` bytes apart, at least 3 * width. Alpha is blended over
 * background (0xRRGGBB) with round (x / 255), the arithmetic of PIL's
 * Image.paste (image, mask=alpha); or ignored when background is NULL, which is PIL's
 * convert ("RGB") but for 16-bit grey, of which the high byte is taken (PIL clips at 255,
 * which leaves white). CMYK becomes RGB with PIL's (1 - ink) (1 - black), without an ICC
 * profile. */
void flux_image_to_rgb (
    const FluxImage *self, const guint32 *background, guint8 *rgb, gsize stride);

/* Bytes of one pixel in `pixels`. */
gsize flux_image_pixel_size (FluxImageMode mode);

/* EXIF orientation out of a TIFF structure (with or without a leading "Exif\0\0"); 0 when
 * it holds none. */
gint flux_image_orientation_from_exif (const guint8 *data, gsize size);
/* The same out of an XMP packet. */
gint flux_image_orientation_from_xmp (const guint8 *data, gsize size);

G_END_DECLS
