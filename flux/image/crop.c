/* flux/image/crop.c: which part of a picture is trained on, and at what size.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/image/crop.h"

#include <math.h>
#include <string.h>

#include "flux/error.h"
#include "flux/image/resample.h"
#include "kernels/fx.h"

/* The RNG's stream: "CROP". */
enum { CROP_STREAM = 0x43524f50 };

static gboolean
check_side (gint side, const gchar *what, GError **error)
{
  gint down = side - side % FLUX_CROP_ALIGN;

  if (side >= 0 && side <= FLUX_CROP_MAX_SIDE && side == down)
    return TRUE;
  if (side < 0 || side > FLUX_CROP_MAX_SIDE)
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "%s=%d is outside the range of 16 to %d.", what, side, FLUX_CROP_MAX_SIDE);
  else if (down == 0)
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "%s=%d is not a multiple of 16: use 16.", what, side);
  else
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "%s=%d is not a multiple of 16: use %d or %d.", what, side, down,
        down + FLUX_CROP_ALIGN);
  return FALSE;
}

gboolean
flux_crop_check (const FluxCropOptions *options, GError **error)
{
  if (options->resize != FLUX_RESIZE_BUCKET)
    return check_side (options->width, "width", error) &&
           check_side (options->height, "height", error);
  if (!check_side (options->bucket_step, "bucket-step", error))
    return FALSE;
  if (options->bucket_step == 0 ||
      options->max_area / options->bucket_step < options->bucket_step) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "max-area=%d leaves no room for a bucket of %dx%d: raise it or lower "
        "bucket-step.",
        options->max_area, options->bucket_step, options->bucket_step);
    return FALSE;
  }
  return TRUE;
}

static gint
clamp_side (gint64 side)
{
  return CLAMP (
      side / FLUX_CROP_ALIGN * FLUX_CROP_ALIGN, FLUX_CROP_ALIGN, FLUX_CROP_MAX_SIDE);
}

static void
get_bucket (const FluxCropOptions *o, gint source_width, gint source_height, gint *width,
    gint *height)
{
  gdouble wanted = log ((gdouble)source_width / source_height), best = INFINITY;

  *width = *height = o->bucket_step;
  for (gint side = o->bucket_step; side <= FLUX_CROP_MAX_SIDE; side += o->bucket_step) {
    gint other = MIN (o->max_area / side, FLUX_CROP_MAX_SIDE);

    other -= other % o->bucket_step;
    if (other == 0)
      break;
    for (int turned = 0; turned < 2; turned++) {
      gint w = turned ? other : side, h = turned ? side : other;
      gdouble distance = fabs (log ((gdouble)w / h) - wanted);

      /* The same ratio comes out of log with differences of a few ulp. */
      if (distance < best - 1e-12 ||
          (distance < best + 1e-12 && (gint64)w * h > (gint64)*width * *height)) {
        best = distance;
        *width = w;
        *height = h;
      }
    }
  }
}

gboolean
flux_crop_get_size (const FluxCropOptions *o, gint source_width, gint source_height,
    gint *width, gint *height, GError **error)
{
  const gint half = FLUX_CROP_ALIGN / 2;
  gint64 w = source_width, h = source_height;

  if (!flux_crop_check (o, error))
    return FALSE;
  if (o->resize == FLUX_RESIZE_BUCKET) {
    get_bucket (o, source_width, source_height, width, height);
    return TRUE;
  }
  *width = o->width;
  *height = o->height;
  if (o->width == 0 && (o->height == 0 || o->resize == FLUX_RESIZE_NONE))
    *width = clamp_side (w);
  else if (o->width == 0)
    *width = clamp_side ((2 * w * o->height + h) / (2 * h) + half);
  if (o->height == 0 && (o->width == 0 || o->resize == FLUX_RESIZE_NONE))
    *height = clamp_side (h);
  else if (o->height == 0)
    *height = clamp_side ((2 * h * o->width + w) / (2 * w) + half);
  if (o->resize == FLUX_RESIZE_NONE && (*width > w || *height > h)) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH,
        "a picture of %dx%d is smaller than the %dx%d to be cropped from it: use "
        "resize=cover.",
        source_width, source_height, *width, *height);
    return FALSE;
  }
  return TRUE;
}

/* Python's round (spare / 2), which CenterCrop uses: halves go to the even number. */
static gint
half_of (gint spare)
{
  return spare / 2 + (spare % 2 == 1 && spare / 2 % 2 == 1);
}

static gint
draw (guint32 bits, gint spare)
{
  return ((guint64)bits * ((guint64)spare + 1)) >> 32;
}

gboolean
flux_crop_plan (const FluxCropOptions *o, gint source_width, gint source_height,
    guint64 identity, guint variant, FluxCrop *crop, GError **error)
{
  gint64 w = source_width, h = source_height;
  uint32_t bits[4];

  memset (crop, 0, sizeof *crop);
  crop->source_width = source_width;
  crop->source_height = source_height;
  if (!flux_crop_get_size (
          o, source_width, source_height, &crop->width, &crop->height, error))
    return FALSE;
  if (o->resize == FLUX_RESIZE_NONE) {
    crop->scaled_width = source_width;
    crop->scaled_height = source_height;
  } else if (o->resize == FLUX_RESIZE_SQUASH) {
    crop->scaled_width = crop->width;
    crop->scaled_height = crop->height;
  } else if (crop->width * h >= crop->height * w) {
    crop->scaled_width = crop->width;
    crop->scaled_height = MIN (h * crop->width / w, G_MAXINT / 4);
  } else {
    crop->scaled_height = crop->height;
    crop->scaled_width = MIN (w * crop->height / h, G_MAXINT / 4);
  }

  fx_philox (o->seed, (guint32)identity, identity >> 32, CROP_STREAM, variant, bits);
  if (o->position == FLUX_CROP_RANDOM) {
    crop->x = draw (bits[0], crop->scaled_width - crop->width);
    crop->y = draw (bits[1], crop->scaled_height - crop->height);
  } else {
    crop->x = half_of (crop->scaled_width - crop->width);
    crop->y = half_of (crop->scaled_height - crop->height);
  }
  crop->flip =
      o->flip == FLUX_FLIP_ALWAYS || (o->flip == FLUX_FLIP_RANDOM && bits[2] >> 31);
  return TRUE;
}

static void
flip_row (guint8 *row, gint width)
{
  for (guint8 *left = row, *right = row + 3 * (width - 1); left < right;
       left += 3, right -= 3)
    for (int c = 0; c < 3; c++) {
      guint8 v = left[c];

      left[c] = right[c];
      right[c] = v;
    }
}

gboolean
flux_crop_apply (const FluxCrop *crop, const guint8 *src, gsize stride, guint8 *dst,
    gsize dst_stride, GError **error)
{
  if (!flux_image_resample (src, crop->source_width, crop->source_height, stride,
          crop->scaled_width, crop->scaled_height, crop->x, crop->y, crop->width,
          crop->height, dst, dst_stride)) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_NO_SPACE,
        "there is no memory to scale a picture of %dx%d to %dx%d.", crop->source_width,
        crop->source_height, crop->scaled_width, crop->scaled_height);
    return FALSE;
  }
  if (crop->flip)
    for (gint y = 0; y < crop->height; y++)
      flip_row (dst + y * dst_stride, crop->width);
  return TRUE;
}
