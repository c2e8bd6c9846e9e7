/* flux/image/crop.h: which part of a picture is trained on, and at what size.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * FLUX packs latents of 1/8 size two by two, so that every side is a multiple of 16. A
 * size that is asked for has to be one (else FLUX_ERROR_SETTINGS); a size that is derived
 * is rounded to one. */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

#define FLUX_CROP_ALIGN 16
#define FLUX_CROP_MAX_SIDE 16384

typedef enum {
  FLUX_RESIZE_NONE,   /* not scaled, only cropped */
  FLUX_RESIZE_COVER,  /* scaled until both sides are reached, the rest is cropped */
  FLUX_RESIZE_SQUASH, /* each side scaled by itself, nothing is cropped */
  FLUX_RESIZE_BUCKET, /* cover, to the bucket of the nearest aspect ratio */
} FluxResize;

typedef enum { FLUX_CROP_CENTRE, FLUX_CROP_RANDOM } FluxCropPosition;
typedef enum { FLUX_FLIP_NONE, FLUX_FLIP_RANDOM, FLUX_FLIP_ALWAYS } FluxFlip;

typedef struct {
  FluxResize resize;
  /* Not for buckets. 0: from the other one by the picture's aspect ratio, rounded to the
   * nearest multiple of 16; both 0: the picture's own size, rounded down. */
  gint width, height;
  gint max_area;    /* buckets: pixels at most */
  gint bucket_step; /* buckets: both sides are multiples of this */
  FluxCropPosition position;
  FluxFlip flip;
  guint64 seed;
} FluxCropOptions;

typedef struct {
  gint source_width, source_height;
  gint scaled_width, scaled_height; /* of the whole picture */
  gint x, y, width, height;         /* the part that is kept */
  gboolean flip;                    /* left to right, afterwards */
} FluxCrop;

/* Whether the options make sense for any picture. */
gboolean flux_crop_check (const FluxCropOptions *options, GError **error);

/* The size that a picture of source_width x source_height comes out with. A bucket is a
 * width and the greatest height, or a height and the greatest width, in steps of
 * bucket_step, of at most max_area pixels and FLUX_CROP_MAX_SIDE a side; the one with the
 * smallest |log (aspect / aspect of the picture)| is taken, of equal ones the larger. */
gboolean flux_crop_get_size (const FluxCropOptions *options, gint source_width,
    gint source_height, gint *width, gint *height, GError **error);

/* What to do with a picture. COVER scales the side that needs more to the wanted length
 * and the other by floor (as torchvision's Resize does for squares); the centre is
 * rounded to even (torchvision's CenterCrop). Random draws depend on (seed, identity,
 * variant) only; identity is 64 bits of the picture's key. */
gboolean flux_crop_plan (const FluxCropOptions *options, gint source_width,
    gint source_height, guint64 identity, guint variant, FluxCrop *crop, GError **error);

/* Does it: src [source_height, source_width, 3] to dst [height, width, 3]. Strides in
 * bytes. FALSE when memory is short. */
gboolean flux_crop_apply (const FluxCrop *crop, const guint8 *src, gsize stride,
    guint8 *dst, gsize dst_stride, GError **error);

G_END_DECLS
