/* tests/fuzz/consume-image.h: decodes bytes that may be anything, and uses all that comes
 * of them. SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Shared by fuzz-image and by test-image-mutations. */
#pragma once

#include <string.h>

#include "flux/error.h"
#include "flux/image/image.h"

static inline void
consume_picture (FluxImage *image)
{
  static const guint32 ground = 0x204080;
  gsize stride = 3 * (gsize)image->width + 1;
  guint8 *rgb = g_malloc (stride * image->height);
  guint32 sum = 0;
  gchar *key;

  g_assert_cmpint (image->orientation, >=, 1);
  g_assert_cmpint (image->orientation, <=, 8);
  g_assert_true (flux_image_apply_orientation (image));
  key = flux_image_dup_key (image);
  g_assert_cmpuint (strlen (key), ==, 64);
  stride = 3 * (gsize)image->width;
  for (int i = 0; i < 2; i++) {
    flux_image_to_rgb (image, i ? &ground : NULL, rgb, stride);
    for (gsize b = 0; b < stride * image->height; b++)
      sum = sum * 31 + rgb[b];
  }
  if (image->warning != NULL)
    g_assert_true (g_utf8_validate (image->warning, -1, NULL));
  g_assert_cmpuint (sum, <=, G_MAXUINT32);
  g_free (key);
  g_free (rgb);
}

/* Whether it was decoded. */
static inline gboolean
consume_image (const guint8 *data, gsize size)
{
  GError *error = NULL;
  FluxImage *image = flux_image_decode (data, size, "fuzz", 1 << 16, &error);

  if (image == NULL) {
    g_assert_true (error->domain == FLUX_ERROR);
    g_assert_nonnull (strstr (error->message, "'fuzz'"));
    g_assert_true (g_utf8_validate (error->message, -1, NULL));
    g_error_free (error);
    return FALSE;
  }
  g_assert_no_error (error);
  consume_picture (image);
  flux_image_free (image);
  return TRUE;
}

/* The checksum of PNG chunks (PNG standard, annex D). */
static inline guint32
consume_crc (const guint8 *p, gsize n)
{
  guint32 crc = 0xffffffff;

  for (gsize i = 0; i < n; i++) {
    crc ^= p[i];
    for (int bit = 0; bit < 8; bit++)
      crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc;
}

/* Makes the checksums of a changed PNG right, so that the change is looked at. */
static inline void
consume_fix_png (guint8 *data, gsize size)
{
  gsize at = 8;

  while (at <= size && size - at >= 12) {
    gsize n =
        (gsize)data[at] << 24 | data[at + 1] << 16 | data[at + 2] << 8 | data[at + 3];
    guint32 crc;

    if (n > size - at - 12)
      break;
    crc = consume_crc (data + at + 4, n + 4);
    for (int i = 0; i < 4; i++)
      data[at + 8 + n + i] = (guint8)(crc >> (24 - 8 * i));
    at += n + 12;
  }
}
