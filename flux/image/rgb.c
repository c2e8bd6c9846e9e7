/* flux/image/rgb.c: any mode to RGB. SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/image/image-private.h"

#include <string.h>

/* round (v / 255) for 0 <= v <= 255 * 255 (Pillow ImagingUtils.h DIV255). */
static guint8
div255 (guint v)
{
  v += 128;
  return ((v >> 8) + v) >> 8;
}

static guint8
cmyk_channel (guint8 ink, guint8 black)
{
  guint paper = 255 - black;

  return paper - div255 (ink * paper);
}

/* Pixel p of the picture without its alpha; returns the alpha. */
static guint8
get_rgb (const FluxImage *self, const guint8 *p, guint8 rgb[3])
{
  switch (self->mode) {
    case FLUX_IMAGE_P:
      memcpy (rgb, self->palette[*p], 3);
      return self->palette[*p][3];
    case FLUX_IMAGE_I16:
      memset (rgb, p[1], 3);
      return 255;
    case FLUX_IMAGE_LA:
      memset (rgb, p[0], 3);
      return p[1];
    case FLUX_IMAGE_RGBA:
      memcpy (rgb, p, 3);
      return p[3];
    case FLUX_IMAGE_CMYK:
      for (int c = 0; c < 3; c++)
        rgb[c] = cmyk_channel (p[c], p[3]);
      return 255;
    case FLUX_IMAGE_RGB:
      memcpy (rgb, p, 3);
      return 255;
    default:
      memset (rgb, p[0], 3);
      return 255;
  }
}

void
flux_image_to_rgb (
    const FluxImage *self, const guint32 *background, guint8 *rgb, gsize stride)
{
  gsize pixel_size = flux_image_pixel_size (self->mode);
  const guint8 *p = self->pixels, *mask = self->mask;
  guint8 ground[3] = {0, 0, 0};

  if (background != NULL)
    for (int c = 0; c < 3; c++)
      ground[c] = *background >> (16 - 8 * c);
  for (gint y = 0; y < self->height; y++) {
    guint8 *q = rgb + y * stride;

    for (gint x = 0; x < self->width; x++, p += pixel_size, q += 3) {
      guint8 alpha = get_rgb (self, p, q);

      if (mask != NULL)
        alpha = *mask++;
      if (alpha != 255 && background != NULL)
        for (int c = 0; c < 3; c++)
          q[c] = div255 (q[c] * alpha + ground[c] * (255 - alpha));
    }
  }
}
