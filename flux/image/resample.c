/* flux/image/resample.c: PIL's antialiased bilinear resampling. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include "flux/image/resample.h"

#include <math.h>
#include <string.h>

enum { PRECISION = 22 };

/* For each output position the first input position and the weights of what follows. */
typedef struct {
  gint size;
  gint *first, *count; /* [n] */
  gint32 *weights;     /* [n, size] */
} Taps;

static void
taps_clear (Taps *t)
{
  g_free (t->first);
  g_free (t->count);
  g_free (t->weights);
}

/* Weights of output positions [from, from + n) of out that in positions are scaled to. */
static gboolean
taps_init (Taps *t, gint in, gint out, gint from, gint n)
{
  gdouble scale = (gdouble)in / out, width = MAX (scale, 1.0);
  gdouble reciprocal = 1.0 / width; /* as PIL: dividing below would round differently */
  gdouble *w;

  memset (t, 0, sizeof *t);
  t->size = (gint)ceil (width) * 2 + 1;
  t->first = g_try_new (gint, n);
  t->count = g_try_new (gint, n);
  t->weights = g_try_new0 (gint32, (gsize)n * t->size);
  w = g_try_new (gdouble, t->size);
  if (t->first == NULL || t->count == NULL || t->weights == NULL || w == NULL) {
    g_free (w);
    taps_clear (t);
    return FALSE;
  }
  for (gint i = 0; i < n; i++) {
    gdouble centre = (from + i + 0.5) * scale, sum = 0;
    gint first = MAX ((gint)(centre - width + 0.5), 0);
    gint count = MIN ((gint)(centre + width + 0.5), in) - first;

    for (gint k = 0; k < count; k++) {
      gdouble d = fabs ((k + first - centre + 0.5) * reciprocal);

      w[k] = d < 1.0 ? 1.0 - d : 0.0;
      sum += w[k];
    }
    t->first[i] = first;
    t->count[i] = count;
    for (gint k = 0; k < count; k++)
      t->weights[(gsize)i * t->size + k] =
          (gint32)(0.5 + (sum != 0 ? w[k] / sum : w[k]) * (1 << PRECISION));
  }
  g_free (w);
  return TRUE;
}

static inline guint8
clip8 (gint32 v)
{
  v >>= PRECISION;
  return v < 0 ? 0 : v > 255 ? 255 : v;
}

/* out [rows, n, 3] from src rows. */
static void
resample_rows (
    const Taps *t, gint n, const guint8 *src, gsize stride, gint rows, guint8 *out)
{
  for (gint y = 0; y < rows; y++, src += stride)
    for (gint x = 0; x < n; x++, out += 3) {
      const gint32 *w = t->weights + (gsize)x * t->size;
      const guint8 *p = src + 3 * (gsize)t->first[x];
      gint32 r = 1 << (PRECISION - 1), g = r, b = r;

      for (gint k = 0; k < t->count[x]; k++, p += 3) {
        r += p[0] * w[k];
        g += p[1] * w[k];
        b += p[2] * w[k];
      }
      out[0] = clip8 (r);
      out[1] = clip8 (g);
      out[2] = clip8 (b);
    }
}

/* dst [n, bytes] from rows of src, whose first is row `base` of the picture; sums is
 * scratch [bytes]. */
static void
resample_columns (const Taps *t, gint n, const guint8 *src, gsize stride, gint base,
    gsize bytes, gint32 *sums, guint8 *dst, gsize dst_stride)
{
  for (gint y = 0; y < n; y++, dst += dst_stride) {
    const gint32 *w = t->weights + (gsize)y * t->size;

    for (gsize i = 0; i < bytes; i++)
      sums[i] = 1 << (PRECISION - 1);
    for (gint k = 0; k < t->count[y]; k++) {
      const guint8 *row = src + (t->first[y] - base + k) * stride;

      for (gsize i = 0; i < bytes; i++)
        sums[i] += row[i] * w[k];
    }
    for (gsize i = 0; i < bytes; i++)
      dst[i] = clip8 (sums[i]);
  }
}

gboolean
flux_image_resample (const guint8 *src, gint width, gint height, gsize stride,
    gint scaled_width, gint scaled_height, gint x, gint y, gint crop_width,
    gint crop_height, guint8 *dst, gsize dst_stride)
{
  const gboolean across = scaled_width != width, down = scaled_height != height;
  const gsize bytes = 3 * (gsize)crop_width;
  Taps tx = {0}, ty = {0};
  gint top = y, rows = crop_height;
  guint8 *between = NULL;
  gint32 *sums = NULL;
  gboolean ok = FALSE;

  if (width <= 0 || height <= 0 || x < 0 || y < 0 || crop_width <= 0 ||
      crop_height <= 0 || x > scaled_width - crop_width ||
      y > scaled_height - crop_height)
    return FALSE;
  if (across && !taps_init (&tx, width, scaled_width, x, crop_width))
    return FALSE;
  if (down && !taps_init (&ty, height, scaled_height, y, crop_height))
    goto done;
  if (down) {
    top = ty.first[0];
    rows = ty.first[crop_height - 1] + ty.count[crop_height - 1] - top;
  }
  /* PIL leaves out a direction that does not change: no second rounding there. */
  src += top * stride;
  if (across && down) {
    between = g_try_malloc (rows * bytes);
    if (between == NULL)
      goto done;
    resample_rows (&tx, crop_width, src, stride, rows, between);
    src = between;
    stride = bytes;
  } else if (across) {
    for (gint row = 0; row < rows; row++)
      resample_rows (
          &tx, crop_width, src + row * stride, stride, 1, dst + row * dst_stride);
  } else {
    src += 3 * (gsize)x;
  }
  if (down) {
    sums = g_try_new (gint32, bytes);
    if (sums == NULL)
      goto done;
    resample_columns (&ty, crop_height, src, stride, top, bytes, sums, dst, dst_stride);
  } else if (!across) {
    for (gint row = 0; row < rows; row++)
      memcpy (dst + row * dst_stride, src + row * stride, bytes);
  }
  ok = TRUE;
done:
  g_free (between);
  g_free (sums);
  taps_clear (&tx);
  taps_clear (&ty);
  return ok;
}
