/* flux/image/png.c: PNG through libpng, without any of its transformations.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/image/image-private.h"

#include <png.h>
#include <setjmp.h>
#include <string.h>

#include "flux/error.h"

/* The largest piece of memory that libpng gets: a row of the widest picture it reads has
 * 8 MB, PIL keeps at most 64 MB of text. A chunk may claim 2 GB, which libpng 1.6.39
 * would allocate before it finds the file shorter. */
#define MAX_PIECE (64 << 20)

typedef struct {
  const guint8 *data;
  gsize size, pos;
  const gchar *name;
  guint64 max_pixels;
  GError **error;

  png_structp png;
  png_infop info, end;
  int depth, colour;
  FluxImage *image;
  guint8 *raw; /* one row; all rows when interlaced */
  gsize raw_stride;
  gboolean rows_done;
  gchar message[96];
} PngReader;

static void
on_error (png_structp png, png_const_charp message)
{
  PngReader *r = png_get_error_ptr (png);

  g_strlcpy (r->message, message, sizeof r->message);
  png_longjmp (png, 1);
}

static void
on_warning (png_structp png, png_const_charp message)
{
}

static void
on_read (png_structp png, png_bytep out, size_t length)
{
  PngReader *r = png_get_io_ptr (png);

  if (length > r->size - r->pos)
    png_error (png, "the file ends too early");
  memcpy (out, r->data + r->pos, length);
  r->pos += length;
}

static png_voidp
on_malloc (png_structp png, png_alloc_size_t size)
{
  return size > MAX_PIECE ? NULL : g_try_malloc (size);
}

static void
on_free (png_structp png, png_voidp p)
{
  g_free (p);
}

static FluxImageMode
mode_of (int depth, int colour)
{
  switch (colour) {
    case PNG_COLOR_TYPE_GRAY:
      return depth == 1 ? FLUX_IMAGE_1 : depth == 16 ? FLUX_IMAGE_I16 : FLUX_IMAGE_L;
    case PNG_COLOR_TYPE_PALETTE:
      return FLUX_IMAGE_P;
    case PNG_COLOR_TYPE_GRAY_ALPHA:
      return depth == 16 ? FLUX_IMAGE_RGBA : FLUX_IMAGE_LA;
    case PNG_COLOR_TYPE_RGB:
      return FLUX_IMAGE_RGB;
    default:
      return FLUX_IMAGE_RGBA;
  }
}

static gboolean
read_header (PngReader *r)
{
  png_read_info (r->png, r->info);
  r->depth = png_get_bit_depth (r->png, r->info);
  r->colour = png_get_color_type (r->png, r->info);
  r->image = flux_image_new (FLUX_IMAGE_FORMAT_PNG, mode_of (r->depth, r->colour),
      png_get_image_width (r->png, r->info), png_get_image_height (r->png, r->info),
      r->name, r->max_pixels, r->error);
  return r->image != NULL;
}

/* The palette with its alpha, or the mask of the key colour. */
static gboolean
read_transparency (PngReader *r)
{
  FluxImage *image = r->image;
  png_colorp colours;
  png_bytep alpha = NULL;
  int n_colours, n_alpha = 0;
  gboolean keyed = png_get_tRNS (r->png, r->info, &alpha, &n_alpha, NULL) != 0;

  image->has_alpha = keyed || (r->colour & PNG_COLOR_MASK_ALPHA) != 0;
  if (image->mode == FLUX_IMAGE_P) {
    image->palette = g_malloc0 (256 * sizeof *image->palette);
    if (png_get_PLTE (r->png, r->info, &colours, &n_colours) == 0)
      n_colours = 0;
    for (int i = 0; i < 256; i++) {
      if (i < n_colours) {
        image->palette[i][0] = colours[i].red;
        image->palette[i][1] = colours[i].green;
        image->palette[i][2] = colours[i].blue;
      }
      image->palette[i][3] = alpha != NULL && i < n_alpha ? alpha[i] : 255;
    }
  } else if (keyed) {
    image->mask = g_try_malloc ((gsize)image->width * image->height);
    if (image->mask == NULL) {
      g_set_error (r->error, FLUX_ERROR, FLUX_ERROR_NO_SPACE,
          "'%s' is too large for the memory there is.", r->name);
      return FALSE;
    }
  }
  return TRUE;
}

/* Sample i of a row, at the file's depth. */
static guint
get_sample (const guint8 *row, gsize i, int depth)
{
  gsize bit = i * depth;

  if (depth == 16)
    return row[2 * i] << 8 | row[2 * i + 1];
  return (row[bit / 8] >> (8 - depth - bit % 8)) & ((1 << depth) - 1);
}

static void
convert_row (PngReader *r, const guint8 *raw, gint y)
{
  FluxImage *image = r->image;
  gsize n = flux_image_pixel_size (image->mode);
  guint8 *out = image->pixels + (gsize)y * image->width * n;
  /* PIL stretches grey to 8 bits, indices stay. */
  guint scale =
      r->colour == PNG_COLOR_TYPE_GRAY ? 255 / ((1 << MIN (r->depth, 8)) - 1) : 1;

  if (r->depth < 8) {
    for (gint x = 0; x < image->width; x++)
      out[x] = get_sample (raw, x, r->depth) * scale;
  } else if (r->depth == 8) {
    memcpy (out, raw, image->width * n);
  } else if (image->mode == FLUX_IMAGE_I16) {
    for (gint x = 0; x < image->width; x++) {
      out[2 * x] = raw[2 * x + 1];
      out[2 * x + 1] = raw[2 * x];
    }
  } else if (r->colour == PNG_COLOR_TYPE_GRAY_ALPHA) {
    for (gint x = 0; x < image->width; x++) {
      memset (out + 4 * x, raw[4 * x], 3);
      out[4 * x + 3] = raw[4 * x + 2];
    }
  } else {
    for (gsize i = 0; i < image->width * n; i++)
      out[i] = raw[2 * i];
  }
}

/* Pixels of exactly the key colour are transparent: compared at the file's depth. */
static void
mask_row (PngReader *r, const png_color_16 *key, const guint8 *raw, gint y)
{
  const gboolean grey = r->colour == PNG_COLOR_TYPE_GRAY;
  const guint want[3] = {grey ? key->gray : key->red, key->green, key->blue};
  const gint n = grey ? 1 : 3;
  guint8 *mask = r->image->mask + (gsize)y * r->image->width;

  for (gint x = 0; x < r->image->width; x++) {
    gboolean equal = TRUE;

    for (gint c = 0; c < n; c++)
      equal &= get_sample (raw, (gsize)x * n + c, r->depth) == want[c];
    mask[x] = equal ? 0 : 255;
  }
}

static gboolean
read_rows (PngReader *r)
{
  int passes = png_set_interlace_handling (r->png);
  gint height = r->image->height;
  png_color_16p key = NULL;

  if (r->image->mask != NULL)
    png_get_tRNS (r->png, r->info, NULL, NULL, &key);
  png_read_update_info (r->png, r->info);
  r->raw_stride = png_get_rowbytes (r->png, r->info);
  r->raw = g_try_malloc0_n (passes > 1 ? height : 1, r->raw_stride);
  if (r->raw == NULL) {
    g_set_error (r->error, FLUX_ERROR, FLUX_ERROR_NO_SPACE,
        "'%s' is too large for the memory there is.", r->name);
    return FALSE;
  }
  for (int pass = 0; pass < passes; pass++)
    for (gint y = 0; y < height; y++) {
      guint8 *raw = r->raw + (passes > 1 ? y * r->raw_stride : 0);

      png_read_row (r->png, raw, NULL);
      if (pass < passes - 1)
        continue;
      convert_row (r, raw, y);
      if (key != NULL)
        mask_row (r, key, raw, y);
    }
  r->rows_done = TRUE;
  return TRUE;
}

/* "\nexif\n      40\n45786966...": the way ImageMagick keeps EXIF in a text chunk. */
static GByteArray *
parse_raw_profile (const gchar *text, gsize length)
{
  const gchar *end = text + length;
  GByteArray *bytes;
  gint high = -1;

  for (int line = 0; line < 3; line++) {
    text = memchr (text, '\n', end - text);
    if (text == NULL)
      return NULL;
    text++;
  }
  bytes = g_byte_array_new ();
  for (; text < end; text++) {
    gint digit = g_ascii_xdigit_value (*text);
    guint8 byte;

    if (digit < 0)
      continue;
    if (high < 0) {
      high = digit;
      continue;
    }
    byte = high << 4 | digit;
    g_byte_array_append (bytes, &byte, 1);
    high = -1;
  }
  return bytes;
}

static void
find_orientation (PngReader *r)
{
  const png_infop infos[2] = {r->info, r->end};
  const guint8 *exif = NULL, *xmp = NULL;
  gsize exif_size = 0, xmp_size = 0;
  GByteArray *profile = NULL;

  for (int i = 0; i < 2; i++) {
    png_textp text;
    png_bytep chunk;
    png_uint_32 chunk_size;
    int n_text = 0;

    if (exif == NULL && png_get_eXIf_1 (r->png, infos[i], &chunk_size, &chunk) != 0) {
      exif = chunk;
      exif_size = chunk_size;
    }
    png_get_text (r->png, infos[i], &text, &n_text);
    for (int t = 0; t < n_text; t++) {
      gsize length = text[t].text == NULL      ? 0
                     : text[t].compression > 0 ? text[t].itxt_length
                                               : text[t].text_length;

      if (length == 0)
        continue;
      if (profile == NULL && strcmp (text[t].key, "Raw profile type exif") == 0) {
        profile = parse_raw_profile (text[t].text, length);
      } else if (strcmp (text[t].key, "XML:com.adobe.xmp") == 0) {
        xmp = (const guint8 *)text[t].text;
        xmp_size = length;
      }
    }
  }
  if (exif == NULL && profile != NULL) {
    exif = profile->data;
    exif_size = profile->len;
  }
  flux_image_set_orientation (r->image, exif, exif_size, xmp, xmp_size);
  if (profile != NULL)
    g_byte_array_unref (profile);
}

/* Everything that may jump out through on_error(). */
static gboolean
read_all (PngReader *r)
{
  if (setjmp (png_jmpbuf (r->png)) != 0)
    return FALSE;
  if (!read_header (r) || !read_transparency (r) || !read_rows (r))
    return FALSE;
  /* What follows the pixels may hold EXIF; damage there is no loss. */
  png_read_end (r->png, r->end);
  return TRUE;
}

FluxImage *
flux_image_decode_png (
    const guint8 *data, gsize size, const gchar *name, guint64 max_pixels, GError **error)
{
  GError *local = NULL;
  PngReader r = {.data = data,
      .size = size,
      .name = name,
      .max_pixels = max_pixels,
      .error = &local,
      .message = "libpng is of another version"};
  FluxImage *image = NULL;
  gboolean complete = FALSE;

  r.png = png_create_read_struct_2 (
      PNG_LIBPNG_VER_STRING, &r, on_error, on_warning, NULL, on_malloc, on_free);
  if (r.png != NULL) {
    r.info = png_create_info_struct (r.png);
    r.end = png_create_info_struct (r.png);
  }
  if (r.info != NULL && r.end != NULL) {
    png_set_read_fn (r.png, &r, on_read);
    complete = read_all (&r);
    if (r.rows_done) {
      find_orientation (&r);
      image = g_steal_pointer (&r.image);
      if (!complete)
        image->warning = g_strdup_printf ("after the pixels: %s", r.message);
    }
  }
  if (image == NULL && local == NULL)
    g_set_error (&local, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "'%s' is a damaged PNG (%s): replace or remove it.", name, r.message);
  if (local != NULL)
    g_propagate_error (error, local);
  png_destroy_read_struct (&r.png, &r.info, &r.end);
  flux_image_free (r.image);
  g_free (r.raw);
  return image;
}
