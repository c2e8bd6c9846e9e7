/* flux/image/image.c: formats, allocation, the reference's key. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include "flux/image/image-private.h"

#include <string.h>

#include "flux/error.h"

static gboolean
starts_with (const guint8 *data, gsize size, gsize at, const char *magic, gsize length)
{
  return size >= at + length && memcmp (data + at, magic, length) == 0;
}

/* Pictures that people keep beside the three formats: worth a warning, not an error. */
static gboolean
is_other_format (const guint8 *data, gsize size)
{
  static const char *const brands[] = {"avif", "avis", "heic", "heix", "mif1", "jxl "};

  if (starts_with (data, size, 0, "GIF8", 4) || starts_with (data, size, 0, "II*\0", 4) ||
      starts_with (data, size, 0, "MM\0*", 4) || starts_with (data, size, 0, "8BPS", 4) ||
      starts_with (data, size, 0, "\xff\x0a", 2) ||
      starts_with (data, size, 0, "\0\0\0\x0cJXL ", 8))
    return TRUE;
  if (size >= 18 && starts_with (data, size, 0, "BM", 2) && data[15] == 0 &&
      data[16] == 0 && data[17] == 0)
    return TRUE;
  if (starts_with (data, size, 4, "ftyp", 4))
    for (guint i = 0; i < G_N_ELEMENTS (brands); i++)
      if (starts_with (data, size, 8, brands[i], 4))
        return TRUE;
  return FALSE;
}

FluxImageFormat
flux_image_sniff (const guint8 *data, gsize size)
{
  if (starts_with (data, size, 0, "\x89PNG\r\n\x1a\n", 8))
    return FLUX_IMAGE_FORMAT_PNG;
  if (starts_with (data, size, 0, "\xff\xd8\xff", 3))
    return FLUX_IMAGE_FORMAT_JPEG;
  if (starts_with (data, size, 0, "RIFF", 4) && starts_with (data, size, 8, "WEBP", 4))
    return FLUX_IMAGE_FORMAT_WEBP;
  return is_other_format (data, size) ? FLUX_IMAGE_FORMAT_OTHER
                                      : FLUX_IMAGE_FORMAT_UNKNOWN;
}

const gchar *
flux_image_format_name (FluxImageFormat format)
{
  switch (format) {
    case FLUX_IMAGE_FORMAT_PNG:
      return "PNG";
    case FLUX_IMAGE_FORMAT_JPEG:
      return "JPEG";
    case FLUX_IMAGE_FORMAT_WEBP:
      return "WebP";
    default:
      return NULL;
  }
}

FluxImage *
flux_image_decode (
    const guint8 *data, gsize size, const gchar *name, guint64 max_pixels, GError **error)
{
  switch (flux_image_sniff (data, size)) {
    case FLUX_IMAGE_FORMAT_PNG:
      return flux_image_decode_png (data, size, name, max_pixels, error);
    case FLUX_IMAGE_FORMAT_JPEG:
      return flux_image_decode_jpeg (data, size, name, max_pixels, error);
    case FLUX_IMAGE_FORMAT_WEBP:
      return flux_image_decode_webp (data, size, name, max_pixels, error);
    default:
      g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
          "'%s' is not a PNG, JPEG or WebP picture: convert it or remove it.", name);
      return NULL;
  }
}

gsize
flux_image_pixel_size (FluxImageMode mode)
{
  switch (mode) {
    case FLUX_IMAGE_I16:
    case FLUX_IMAGE_LA:
      return 2;
    case FLUX_IMAGE_RGB:
      return 3;
    case FLUX_IMAGE_RGBA:
    case FLUX_IMAGE_CMYK:
      return 4;
    default:
      return 1;
  }
}

gboolean
flux_image_check_size (
    guint64 width, guint64 height, const gchar *name, guint64 max_pixels, GError **error)
{
  /* No format of the three goes beyond 2^31; libpng and libjpeg stop far below. */
  if (width == 0 || height == 0 || width > G_MAXINT32 || height > G_MAXINT32) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "'%s' has an impossible size, %" G_GUINT64_FORMAT "x%" G_GUINT64_FORMAT ".", name,
        width, height);
    return FALSE;
  }
  if (max_pixels != 0 && width * height > max_pixels) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "'%s' has %" G_GUINT64_FORMAT "x%" G_GUINT64_FORMAT
        " pixels, more than the limit of %" G_GUINT64_FORMAT
        ": scale it down, or raise max-pixels.",
        name, width, height, max_pixels);
    return FALSE;
  }
  return TRUE;
}

FluxImage *
flux_image_new (FluxImageFormat format, FluxImageMode mode, guint64 width, guint64 height,
    const gchar *name, guint64 max_pixels, GError **error)
{
  FluxImage *self;

  if (!flux_image_check_size (width, height, name, max_pixels, error))
    return NULL;
  self = g_new0 (FluxImage, 1);
  self->format = format;
  self->mode = mode;
  self->width = width;
  self->height = height;
  self->orientation = 1;
  if (width * height <= G_MAXSIZE / 8)
    self->pixels = g_try_malloc0 (width * height * flux_image_pixel_size (mode));
  if (self->pixels == NULL) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_NO_SPACE,
        "'%s' has %dx%d pixels, for which memory is short: scale it down.", name,
        self->width, self->height);
    g_free (self);
    return NULL;
  }
  return self;
}

void
flux_image_free (FluxImage *self)
{
  if (self == NULL)
    return;
  g_free (self->pixels);
  g_free (self->palette);
  g_free (self->mask);
  g_free (self->warning);
  g_free (self);
}

/* PIL's packing of mode "1": the leftmost pixel in the highest bit, rows padded. */
static void
update_packed (GChecksum *sum, const FluxImage *self)
{
  gsize packed_size = ((gsize)self->width + 7) / 8;
  guint8 *packed = g_malloc (packed_size);

  for (gint y = 0; y < self->height; y++) {
    const guint8 *row = self->pixels + (gsize)y * self->width;

    memset (packed, 0, packed_size);
    for (gint x = 0; x < self->width; x++)
      if (row[x] != 0)
        packed[x / 8] |= 0x80 >> (x % 8);
    g_checksum_update (sum, packed, packed_size);
  }
  g_free (packed);
}

gchar *
flux_image_dup_key (const FluxImage *self)
{
  GChecksum *sum = g_checksum_new (G_CHECKSUM_SHA256);
  gsize row_size = self->width * flux_image_pixel_size (self->mode);
  gchar *key;

  if (self->mode == FLUX_IMAGE_1)
    update_packed (sum, self);
  else /* a row at a time: the length is a gssize */
    for (gint y = 0; y < self->height; y++)
      g_checksum_update (sum, self->pixels + y * row_size, row_size);
  key = g_strdup (g_checksum_get_string (sum));
  g_checksum_free (sum);
  return key;
}
