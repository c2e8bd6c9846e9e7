/* flux/image/orientation.c: EXIF and XMP orientation, and turning pictures by it.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Pillow Image.py getexif(): the tag of IFD 0, else tiff:Orientation of the XMP packet.
 * ImageOps.py exif_transpose(): 2 mirrors left to right, 3 turns by 180 degrees, 4
 * mirrors top to bottom, 5 transposes, 6 turns clockwise, 7 transposes over the other
 * diagonal, 8 turns counter-clockwise; other values do nothing. */
#include "flux/image/image-private.h"

#include <string.h>

enum { TAG_ORIENTATION = 0x0112, TIFF_BYTE = 1, TIFF_SHORT = 3, TIFF_LONG = 4 };

static guint32
get_uint (const guint8 *p, gsize bytes, gboolean little)
{
  guint32 v = 0;

  for (gsize i = 0; i < bytes; i++)
    v |= (guint32)p[little ? i : bytes - 1 - i] << (8 * i);
  return v;
}

gint
flux_image_orientation_from_exif (const guint8 *data, gsize size)
{
  gboolean little;
  guint32 ifd, entries, value;

  for (int i = 0; i < 2 && size >= 6 && memcmp (data, "Exif\0\0", 6) == 0; i++) {
    data += 6;
    size -= 6;
  }
  if (size < 8)
    return 0;
  little = memcmp (data, "II*\0", 4) == 0;
  if (!little && memcmp (data, "MM\0*", 4) != 0)
    return 0;
  ifd = get_uint (data + 4, 4, little);
  if (ifd > size || size - ifd < 2)
    return 0;
  entries = get_uint (data + ifd, 2, little);
  for (guint32 i = 0; i < entries && size - ifd - 2 >= 12 * ((gsize)i + 1); i++) {
    const guint8 *entry = data + ifd + 2 + 12 * (gsize)i;
    guint32 type = get_uint (entry + 2, 2, little);

    if (get_uint (entry, 2, little) != TAG_ORIENTATION ||
        get_uint (entry + 4, 4, little) != 1)
      continue;
    if (type == TIFF_BYTE)
      value = entry[8];
    else if (type == TIFF_SHORT)
      value = get_uint (entry + 8, 2, little);
    else if (type == TIFF_LONG)
      value = get_uint (entry + 8, 4, little);
    else
      continue;
    return value >= 1 && value <= 8 ? (gint)value : 1;
  }
  return 0;
}

/* PIL searches the packet with the expression tiff:Orientation(="|>)([0-9]). */
gint
flux_image_orientation_from_xmp (const guint8 *data, gsize size)
{
  static const char name[] = "tiff:Orientation";
  const gsize length = sizeof name - 1;

  for (const guint8 *p = data; size - (p - data) > length;) {
    const guint8 *found = memmem (p, size - (p - data), name, length);
    gsize left;

    if (found == NULL)
      return 0;
    p = found + length;
    left = size - (p - data);
    if (left >= 3 && p[0] == '=' && p[1] == '"' && g_ascii_isdigit (p[2]))
      return p[2] >= '1' && p[2] <= '8' ? p[2] - '0' : 1;
    if (left >= 2 && p[0] == '>' && g_ascii_isdigit (p[1]))
      return p[1] >= '1' && p[1] <= '8' ? p[1] - '0' : 1;
  }
  return 0;
}

void
flux_image_set_orientation (FluxImage *self, const guint8 *exif, gsize exif_size,
    const guint8 *xmp, gsize xmp_size)
{
  gint orientation = 0;

  if (exif != NULL)
    orientation = flux_image_orientation_from_exif (exif, exif_size);
  if (orientation == 0 && xmp != NULL)
    orientation = flux_image_orientation_from_xmp (xmp, xmp_size);
  self->orientation = orientation == 0 ? 1 : orientation;
}

/* The plane [height, width, n bytes] turned by orientation: pixel (x, y) of the result is
 * pixel (sx, sy) of the source. */
static guint8 *
turn_plane (const guint8 *src, gint width, gint height, gsize n, gint orientation)
{
  gboolean swap = orientation >= 5;
  gint out_width = swap ? height : width, out_height = swap ? width : height;
  gboolean mirror_x =
      orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  gboolean mirror_y =
      orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  guint8 *out = g_try_malloc ((gsize)width * height * n), *q = out;

  if (out == NULL)
    return NULL;
  for (gint y = 0; y < out_height; y++)
    for (gint x = 0; x < out_width; x++, q += n) {
      gint sx = swap ? y : x, sy = swap ? x : y;

      if (mirror_x)
        sx = width - 1 - sx;
      if (mirror_y)
        sy = height - 1 - sy;
      memcpy (q, src + ((gsize)sy * width + sx) * n, n);
    }
  return out;
}

gboolean
flux_image_apply_orientation (FluxImage *self)
{
  guint8 *pixels, *mask = NULL;
  gint height = self->height;

  if (self->orientation <= 1)
    return TRUE;
  pixels = turn_plane (self->pixels, self->width, self->height,
      flux_image_pixel_size (self->mode), self->orientation);
  if (self->mask != NULL)
    mask = turn_plane (self->mask, self->width, self->height, 1, self->orientation);
  if (pixels == NULL || (self->mask != NULL && mask == NULL)) {
    g_free (pixels);
    g_free (mask);
    return FALSE;
  }
  g_free (self->pixels);
  g_free (self->mask);
  self->pixels = pixels;
  self->mask = mask;
  if (self->orientation >= 5) {
    self->height = self->width;
    self->width = height;
  }
  self->orientation = 1;
  return TRUE;
}
